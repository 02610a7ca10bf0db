"""Durations in words."""


def duration(seconds: float) -> str:
    """Such as "12.3 s", "3 min 20 s", "75 min", "3 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
