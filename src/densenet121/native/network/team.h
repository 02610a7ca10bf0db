// Threads that share the pieces of one phase after another.
//
// A phase ends when its pieces are done, not when all threads have arrived: a thread that the
// system has suspended for another process delays the others only while it has a piece. A waiting
// thread spins for a short time and then sleeps, so that the system can give its processor to the
// thread that it waits for. Which thread computes which piece is not deterministic; its result is.

#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "failure.h"

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

class Phases {
 public:
  Failure failure;

  explicit Phases(int64_t count) : phases_(new Phase[count]) {}

  // Computes pieces 0 .. pieces - 1 of a phase on all threads that call this. All of them must pass
  // the same number of pieces.
  template <class Work>
  void run(int64_t phase, int32_t pieces, Work work) {
    Phase& p = phases_[phase];
    for (int32_t i; (i = p.next.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
      try {
        work(i);
      } catch (...) {
        failure.note();  // the piece still counts: others wait for it
      }
      if (p.done.fetch_add(1) + 1 == pieces && p.sleepers.load() > 0) wake_all(p.done);
    }
    for (int spins = 0; p.done.load(std::memory_order_acquire) < pieces; spins++) {
      if (spins < kSpins) {
        pause_briefly();
        continue;
      }
      p.sleepers.fetch_add(1);
      for (int32_t seen; (seen = p.done.load()) < pieces;) sleep_while(p.done, seen);
      p.sleepers.fetch_sub(1);
    }
  }

 private:
  static constexpr int kSpins = 2000;  // about 40 microseconds, the cost of sleeping and waking up
  struct alignas(64) Phase {
    std::atomic<int32_t> next{0}, done{0}, sleepers{0};
  };
  std::unique_ptr<Phase[]> phases_;
};

}  // namespace
