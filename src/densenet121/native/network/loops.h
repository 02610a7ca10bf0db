// Loops on several threads.
//
// A loop has one part for each thread that was asked for. What is computed depends on the part, never
// on the thread that computes it, so a loop has the same bits on all threads and on one.
//
// All threads wait for the last one at the end of a loop. If another process computes on one of the
// processors, the system suspends a thread for milliseconds, and a training step has some 600
// loops: two threads are then slower than one. Who calls the loops notices that, and goes on alone
// for a while.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <omp.h>

#include "failure.h"

namespace {

struct Range {
  int64_t begin, end;
};

// Number `part` of `parts` nearly equal ranges of 0 .. n.
inline Range share(int64_t n, int part, int parts) {
  return {n * part / parts, n * (part + 1) / parts};
}

// The same with the larger ranges first, as OpenMP's static schedule has them.
inline Range loop_share(int64_t n, int part, int parts) {
  const int64_t each = n / parts, larger = n % parts;
  const int64_t begin = part * each + (part < larger ? part : larger);
  return {begin, begin + each + (part < larger)};
}

// Whether the threads are at present faster together than one of them alone.
class Together {
 public:
  using Clock = std::chrono::steady_clock;

  bool worthwhile() const { return !alone_ || Clock::now() >= until_; }

  // After a loop that all threads had, and for which one alone would have taken `one`.
  void took(Clock::duration all, Clock::duration one) {
    const auto now = Clock::now();
    if (alone_) alone_ = false, since_ = now;
    if (now - since_ > kLongest) pause_ = kShortest;
    lost_ += all - one;
    if (lost_ < Clock::duration::zero()) lost_ = Clock::duration::zero();
    if (lost_ < kTooMuch) return;
    alone_ = true;
    until_ = now + pause_;
    pause_ = 2 * pause_ < kLongest ? 2 * pause_ : kLongest;
    lost_ = Clock::duration::zero();
  }

 private:
  // The system gives a processor to a thread for some milliseconds. A trial that fails costs kTooMuch.
  static constexpr Clock::duration kTooMuch = std::chrono::milliseconds(10);
  static constexpr Clock::duration kShortest = std::chrono::milliseconds(50);
  static constexpr Clock::duration kLongest = std::chrono::seconds(2);

  bool alone_ = false;
  Clock::time_point until_, since_ = Clock::now();
  Clock::duration lost_{0}, pause_ = kShortest;
};

inline Together& together() {
  static thread_local Together of_this_thread;
  return of_this_thread;
}

inline void keep_least(std::atomic<int64_t>& least, int64_t value) {
  int64_t seen = least.load(std::memory_order_relaxed);
  while (value < seen && !least.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// Calls work(part, items) for parts 0 .. parts - 1 of 0 .. count - 1, on as many threads or on one.
template <class Work>
void in_parallel(int64_t count, int parts, Work work) {
  using Clock = Together::Clock;
  Failure failure;
  const auto compute = [&](int part, Range items) {
    try {
      work(part, items);
    } catch (...) {
      failure.note();
    }
  };
  if (parts == 1 || !together().worthwhile()) {
    for (int part = 0; part < parts; part++) compute(part, loop_share(count, part, parts));
    return failure.check();
  }
  // What one thread would take for all items, by the part that was computed fastest: a thread that was
  // suspended says nothing.
  std::atomic<int64_t> one{INT64_MAX};
  const auto began = Clock::now();
#pragma omp parallel num_threads(parts)
  // There may be fewer threads than requested.
  for (int part = omp_get_thread_num(); part < parts; part += omp_get_num_threads()) {
    const Range items = loop_share(count, part, parts);
    const auto start = Clock::now();
    compute(part, items);
    if (items.begin == items.end) continue;
    keep_least(one, (Clock::now() - start).count() * count / (items.end - items.begin));
  }
  together().took(Clock::now() - began, Clock::duration(one.load()));
  failure.check();
}

// Calls work(i) for i = 0 .. count - 1.
template <class Work>
void for_each_in_parallel(int64_t count, int threads, Work work) {
  in_parallel(count, threads, [&](int, Range items) {
    for (int64_t i = items.begin; i < items.end; i++) work(i);
  });
}

}  // namespace
