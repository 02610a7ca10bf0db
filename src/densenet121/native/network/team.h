// Threads that share the pieces of one phase after another.
//
// A phase ends when its pieces are done, not when all threads have arrived. The system may suspend a
// thread for another process, for many times as long as a phase takes: a thread that has waited for
// longer than a piece takes computes a piece that another one still has, and all go on. A claim
// decides which of the two writes the result; the late one writes nothing. What it has read
// meanwhile may have been overwritten, so its numbers are worth nothing.
//
// A waiting thread spins for a short time and then sleeps, so that the system can give its processor
// to the thread that it waits for. Which thread computes which piece is not deterministic; its result
// is.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "failure.h"

#if defined(__SANITIZE_THREAD__)
#define DENSENET121_THREAD_SANITIZER
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DENSENET121_THREAD_SANITIZER
#endif
#endif

namespace {

inline void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");  // `yield` does nothing on most processors
#endif
}

// Sleeps while the number is `seen`; may wake up spuriously.
inline void sleep_while(std::atomic<int32_t>& number, int32_t seen) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<int32_t*>(&number), FUTEX_WAIT_PRIVATE, seen, nullptr);
#else
  (void)number, (void)seen;
  std::this_thread::yield();
#endif
}

inline void wake_all(std::atomic<int32_t>& number) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<int32_t*>(&number), FUTEX_WAKE_PRIVATE, INT32_MAX);
#else
  (void)number;
#endif
}

// The right to write the result of a piece. Whoever computes one asks for it once, after computing and
// before writing to memory that other threads see.
class Claim {
 public:
  // Without others: it is always given.
  Claim() = default;
  // `slot` has the number of the piece until somebody has claimed it.
  Claim(std::atomic<uint64_t>* slot, uint64_t piece) : slot_(slot), piece_(piece) {}

  bool operator()() {
    if (!slot_) return true;
    uint64_t seen = slot_->load(std::memory_order_relaxed);
    while ((seen | kHelped) == (piece_ | kHelped)) {
      if (slot_->compare_exchange_weak(seen, kClaimed, std::memory_order_acq_rel)) return won_ = true;
    }
    return false;
  }

  // Whether other threads may compute the same piece.
  bool contested() const { return slot_; }
  bool won() const { return won_; }

  static constexpr uint64_t kHelped = 1;  // another thread computes it, too
  static constexpr uint64_t kClaimed = ~uint64_t{0};

 private:
  std::atomic<uint64_t>* slot_ = nullptr;
  uint64_t piece_ = 0;
  bool won_ = false;
};

class Phases {
  using Clock = std::chrono::steady_clock;

 public:
  Failure failure;

  Phases(int64_t count, int threads)
      : threads_(threads),
        phases_(new Phase[count]),
        next_(new std::atomic<int32_t>[count * threads]()),
        slots_(new Slot[threads]) {}

  // Computes pieces 0 .. pieces - 1 of a phase on all threads that call this; `member` is the number
  // of this one. All of them must pass the same number of pieces. Each takes those of its own share
  // first, whose input it has probably written itself, and then what is left of the others'.
  template <class Work>
  void run(int64_t phase, int32_t pieces, int member, Work work) {
    const auto began = Clock::now();
    int computed = 0;
    for (int i = 0; i < threads_; i++) {
      const int64_t owner = (member + i) % threads_;
      const int32_t first = pieces * owner / threads_, last = pieces * (owner + 1) / threads_;
      std::atomic<int32_t>& next = next_[phase * threads_ + owner];
      for (int32_t piece; (piece = first + next.fetch_add(1, std::memory_order_relaxed)) < last;) {
        compute(phase, piece, pieces, slots_[member], work);
        computed++;
      }
    }
    if (computed) slots_[member].usual = (Clock::now() - began) / computed;
    wait(phase, pieces, member, work);
  }

 private:
  static constexpr Clock::duration kSpins = std::chrono::microseconds(40);  // the cost of a sleep
  static constexpr Clock::duration kLongest = std::chrono::milliseconds(1);
#if defined(DENSENET121_THREAD_SANITIZER)
  static constexpr bool kHelps = false;  // what a late thread reads is a race by definition
#else
  static constexpr bool kHelps = true;
#endif
  struct alignas(64) Phase {
    std::atomic<int32_t> done{0}, sleepers{0};
  };
  struct alignas(64) Slot {
    std::atomic<uint64_t> piece{Claim::kClaimed};
    Clock::duration usual = kSpins;  // time of a piece of the last phase in which it computed some
  };

  static uint64_t number(int64_t phase, int32_t piece) {
    return static_cast<uint64_t>(phase) << 32 | static_cast<uint64_t>(piece) << 1;
  }

  template <class Work>
  void compute(int64_t phase, int32_t index, int32_t pieces, Slot& slot, Work& work) {
    const uint64_t piece = number(phase, index);
    slot.piece.store(piece, std::memory_order_release);
    Claim claim(&slot.piece, piece);
    try {
      work(index, claim);
    } catch (...) {
      failure.note();
      if (!claim.won()) claim();  // the piece still counts: others wait for it
    }
    finish(phases_[phase], claim, pieces);
  }

  static void finish(Phase& p, const Claim& claim, int32_t pieces) {
    if (!claim.won()) return;
    if (p.done.fetch_add(1) + 1 == pieces && p.sleepers.load() > 0) wake_all(p.done);
  }

  // Waits for the end of a phase, and helps those that take too long.
  template <class Work>
  void wait(int64_t phase, int32_t pieces, int member, Work& work) {
    Phase& p = phases_[phase];
    const auto over = [&] { return p.done.load(std::memory_order_acquire) == pieces; };
    if (over()) return;
    Clock::duration patience = slots_[member].usual * 3 / 2;
    patience = patience < kSpins ? kSpins : patience > kLongest ? kLongest : patience;
    const auto until = Clock::now() + patience;
    for (int spins = 1; !over(); spins++) {
      pause_briefly();
      if (spins % 32 || Clock::now() < until) continue;
      while (!over()) {
        if (!help(phase, pieces, member, work)) sleep(p, pieces);
      }
    }
  }

  // Computes a piece of the phase that another thread has and nobody else helps with, if there is one.
  template <class Work>
  bool help(int64_t phase, int32_t pieces, int member, Work& work) {
    for (int i = 1; kHelps && i < threads_; i++) {
      std::atomic<uint64_t>& slot = slots_[(member + i) % threads_].piece;
      uint64_t piece = slot.load(std::memory_order_acquire);
      if (piece == Claim::kClaimed || piece >> 32 != static_cast<uint64_t>(phase)) continue;
      if (piece & Claim::kHelped) continue;
      if (!slot.compare_exchange_strong(piece, piece | Claim::kHelped)) continue;
      Claim claim(&slot, piece);
      try {
        work(static_cast<int32_t>(piece) >> 1, claim);
      } catch (...) {
        if (claim.won()) failure.note();  // else the thread that has it will
      }
      finish(phases_[phase], claim, pieces);
      return true;
    }
    return false;
  }

  static void sleep(Phase& p, int32_t pieces) {
    p.sleepers.fetch_add(1);
    for (int32_t seen; (seen = p.done.load()) < pieces;) sleep_while(p.done, seen);
    p.sleepers.fetch_sub(1);
  }

  int threads_;
  std::unique_ptr<Phase[]> phases_;
  std::unique_ptr<std::atomic<int32_t>[]> next_;  // of each thread's share of each phase
  std::unique_ptr<Slot[]> slots_;
};

}  // namespace
