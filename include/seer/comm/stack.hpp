// SPDX-License-Identifier: Apache-2.0
// Stacks written without allocation or locks of our own, so that signal handlers may.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace seer::comm {

/// One line of text of limited length, put together without allocation.
class SafeText {
 public:
  SafeText& operator<<(const char* text);
  SafeText& operator<<(std::int64_t value);
  SafeText& hex(std::uintptr_t value);
  void write_to(int file) const;
  const char* c_str() const { return text_; }

 private:
  char text_[1536] = "";
  std::size_t length_ = 0;
};

/// To be called before the others (again does no harm), outside of a signal handler: loads what they need.
void prepare_stacks();
/// The executable's build id in hexadecimal, by which its debug symbols are found; "unknown" without one.
const char* build_id();
/// A line a frame: number, file, offset in it (what addr2line wants), function as the linker knows it. Innermost first.
void write_frames(int file, void* const* frames, int depth);
/// Of the calling thread. `context`: a signal handler's third argument; with it the stack goes on (x86-64) above code
/// that a library generated and no unwinder understands.
void write_stack(int file, const void* context = nullptr);
/// Of another thread, by a signal to it. False where it did not answer within a second or the file could not be made.
bool write_stack_of(pthread_t thread, const std::string& path);

}  // namespace seer::comm
