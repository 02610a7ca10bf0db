"""Loops on several threads: the same parts on one of them, and no collapse on a busy machine."""

import subprocess
from pathlib import Path

import pytest

from helpers.programs import compiled

PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <dirent.h>
#include <sched.h>
#endif
#include "loops.h"

using Clock = Together::Clock;
using std::chrono::milliseconds;

int64_t since(Clock::time_point began) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began).count();
}

// Whether OpenMP's static schedule gives each thread the same items, and each part comes once.
int parts() {
  for (int threads : {1, 2, 3, 5}) {
    for (int64_t count : {0, 1, 2, 3, 4, 7, 31, 1000}) {
      std::vector<int> of_openmp(count), ours(count, -1);
#pragma omp parallel for num_threads(threads) schedule(static)
      for (int64_t i = 0; i < count; i++) of_openmp[i] = omp_get_thread_num();
      std::atomic<int> called{0};
      in_parallel(count, threads, [&](int part, Range items) {
        called++;
        for (int64_t i = items.begin; i < items.end; i++) ours[i] = part;
      });
      if (ours != of_openmp || called != threads) return std::printf("%d %ld\\n", threads, count);
    }
  }
  return std::printf("same\\n");
}

// An error of one part, after the others were computed.
int failure() {
  std::atomic<int> computed{0};
  const char* end = "none";
  try {
    in_parallel(4, 4, [&](int part, Range) {
      if (part == 1) throw std::runtime_error("any");
      computed++;
    });
  } catch (const std::bad_alloc&) {
    end = "bad_alloc";
  }
  return std::printf("%s %d\\n", end, computed.load());
}

#if defined(__linux__)
void move_to_one_processor() {
  cpu_set_t all, one;
  sched_getaffinity(0, sizeof(all), &all);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&one); cpu++) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  }
  DIR* tasks = opendir("/proc/self/task");
  while (const dirent* task = readdir(tasks)) {
    if (task->d_name[0] != '.') sched_setaffinity(std::atoi(task->d_name), sizeof(one), &one);
  }
  closedir(tasks);
}
#endif

volatile double sink;

int64_t many_loops(int threads) {
  const auto began = Clock::now();
  for (int loop = 0; loop < 2000; loop++) {
    for_each_in_parallel(8, threads, [](int64_t i) {
      double sum = i;
      for (int n = 0; n < 4000; n++) sum = sum * 0.999 + n;
      sink = sum;
    });
  }
  return since(began);
}

// Time of loops on two threads and on one, if there is one processor for both.
int one_processor() {
#if defined(__linux__)
  many_loops(2);  // the second thread exists
  move_to_one_processor();
  std::printf("%ld %ld\\n", many_loops(2), many_loops(1));
#endif
  return 0;
}

// What is worthwhile after loops that took so many milliseconds, and one thread so many.
int trials() {
  Together team;
  const auto took = [&](int all, int one) { team.took(milliseconds(all), milliseconds(one)); };
  for (int i = 0; i < 1000; i++) took(10, 19);
  took(8, 1);
  std::printf("%d ", team.worthwhile());  // less than 10 ms were lost
  auto began = Clock::now();
  took(8, 1);
  while (!team.worthwhile()) {
  }
  std::printf("%ld ", since(began));
  began = Clock::now();
  took(20, 1);
  while (!team.worthwhile()) {
  }
  std::printf("%ld\\n", since(began));
  return 0;
}

int main(int, char** arguments) {
  const std::string what = arguments[1];
  if (what == "parts") return parts() < 0;
  if (what == "failure") return failure() < 0;
  if (what == "trials") return trials();
  return one_processor();
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("loops"), PROGRAM, "-fopenmp")


def words(program: Path, what: str) -> list[str]:
    done = subprocess.run([program, what], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()


def test_a_loop_has_the_parts_of_openmps_static_schedule(program: Path) -> None:
    assert words(program, "parts") == ["same"]


def test_an_error_in_a_part_is_told_after_all_others_were_computed(program: Path) -> None:
    assert words(program, "failure") == ["bad_alloc", "3"]


def test_two_threads_on_one_processor_take_about_as_long_as_one_thread(program: Path) -> None:
    """Waiting for each other at every loop they took 100 times as long."""
    times = [int(word) for word in words(program, "one_processor")]
    if not times:
        pytest.skip("threads can be moved to one processor on Linux alone")
    assert times[0] < 5 * times[1]


def test_threads_that_lost_time_pause_and_pause_longer_if_it_happens_again(program: Path) -> None:
    together, first_us, second_us = map(int, words(program, "trials"))
    assert together == 1
    assert first_us >= 50_000
    assert second_us >= 100_000
