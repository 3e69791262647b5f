// SPDX-License-Identifier: Apache-2.0
#include "seer/device/parallel.hpp"

#include <omp.h>
#include <unistd.h>

namespace seer::device {

int loop_threads() {
  thread_local const bool first = gettid() == getpid();
  return first && omp_in_parallel() == 0 ? omp_get_max_threads() : 1;
}

void detail::run_in_parallel(std::int64_t count, const void* body, void (*call)(const void* body, std::int64_t i)) {
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < count; ++i) call(body, i);
}

}  // namespace seer::device
