// How a lack of memory leaves a parallel region. OpenMP ends the process where an exception does.

#pragma once

#include <atomic>
#include <new>

namespace {

class Failure {
 public:
  // In a catch clause of any thread. The result of the call is lost; the region goes on to its end.
  void note() { noted_.store(true, std::memory_order_relaxed); }

  // After the region.
  void check() const {
    if (noted_.load(std::memory_order_relaxed)) throw std::bad_alloc();
  }

 private:
  std::atomic<bool> noted_{false};
};

}  // namespace
