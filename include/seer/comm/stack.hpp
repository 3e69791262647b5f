// SPDX-License-Identifier: Apache-2.0
// Writes stacks without allocation or locks of our own, so signal handlers may use it.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace seer::comm {

/// A line of text of limited length, built without allocation.
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

/// Loads what the functions below need. Call it before them, outside of a signal handler; calling it again does no
/// harm.
void prepare_stacks();
/// The executable's build id in hexadecimal, which identifies its debug symbols; "unknown" without one.
const char* build_id();
/// Writes one line per frame: number, file, offset in it (for addr2line), function as the linker knows it. Innermost
/// first.
void write_frames(int file, std::span<void* const> frames);
/// Writes the stack of the calling thread. `context`: a signal handler's third argument; with it the stack goes on
/// (x86-64) above code that a library generated and that no unwinder understands.
void write_stack(int file, const void* context = nullptr);
/// Writes the stack of another thread, by a signal to it. False if it did not answer within a second or the file could
/// not be created.
bool write_stack_of(pthread_t thread, const std::string& path);

}  // namespace seer::comm
