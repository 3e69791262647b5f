// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/stack.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sys/auxv.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

namespace seer::comm {
namespace {

constexpr int kMostFrames = 64;
constexpr auto kAnswer = std::chrono::seconds(1);

char executable_id[2 * 64 + 1] = "unknown";
std::uintptr_t main_stack_end = 0;  ///< above every frame of the main thread
std::atomic<int> wanted_in{-1};     ///< file for the stack of the thread that gets the signal
std::atomic<bool> answered{false};

/// The first object is the executable.
int read_build_id(dl_phdr_info* info, std::size_t, void*) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const char* at = reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);
    const char* const end = at + header.p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      ElfW(Nhdr) note;
      std::memcpy(&note, at, sizeof note);
      const char* const name = at + sizeof note;
      const char* const id = name + (note.n_namesz + 3) / 4 * 4;
      if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz <= 64) {
        const auto* const bytes = reinterpret_cast<const unsigned char*>(id);
        *fmt::format_to(executable_id, "{:02x}", fmt::join(bytes, bytes + note.n_descsz, "")) = '\0';
        return 1;
      }
      at = id + (note.n_descsz + 3) / 4 * 4;
    }
  }
  return 1;
}

int stack_signal() {
  return SIGRTMIN + 5;  // MPI libraries and Slurm do not use it
}

void on_stack_signal(int, siginfo_t*, void* context) {
  const int kept = errno;
  const int file = wanted_in.exchange(-1);
  if (file >= 0) {
    write_stack(file, context);
    answered = true;
  }
  errno = kept;
}

void write_frame(int file, int number, const void* at) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  SafeText line;
  line << "  #" << std::int64_t{number} << " ";
  Dl_info info{};
  if (dladdr(at, &info) != 0 && info.dli_fname != nullptr) {
    line << info.dli_fname << " +";
    line.hex(address - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
    if (info.dli_sname != nullptr) line << " " << info.dli_sname;
  } else {
    line.hex(address);
  }
  (line << "\n").write_to(file);
}

#if defined(__x86_64__)
/// True if a call instruction ends just before this address. `memory`: /proc/self/mem, so that no read can fault.
bool follows_call(int memory, std::uintptr_t address) {
  unsigned char code[7];
  if (pread(memory, code, sizeof code, static_cast<off_t>(address - sizeof code)) != sizeof code) return false;
  if (code[2] == 0xe8) return true;
  for (int length = 2; length <= 7; ++length)  // ff /2: through a register or memory
    if (code[7 - length] == 0xff && (code[8 - length] >> 3 & 7) == 2) return true;
  return false;
}

/// Returns where the interrupted code's caller has its stack. oneDNN's products use their own memory as a stack and
/// keep the thread's stack pointer in it. This finds it for the main thread, whose stack is known.
std::uintptr_t interrupted_stack(int memory, const void* context) {
  constexpr std::uintptr_t kMostStackBytes = 64 << 20;
  const auto place = static_cast<std::uintptr_t>(static_cast<const ucontext_t*>(context)->uc_mcontext.gregs[REG_RSP]);
  const auto on_main_stack = [&](std::uintptr_t at) {
    return at < main_stack_end && at > main_stack_end - kMostStackBytes;
  };
  if (gettid() != getpid() || on_main_stack(place)) return place;
  std::uintptr_t words[64];
  for (std::uintptr_t at = place; at < place + (16 << 10); at += sizeof words) {
    if (pread(memory, words, sizeof words, static_cast<off_t>(at)) != static_cast<ssize_t>(sizeof words)) break;
    for (const auto word : words)
      if (on_main_stack(word)) return word & ~std::uintptr_t{7};
  }
  return place;
}

/// The unwinder ends at code that oneDNN or another library generated at run time, where most of an update is spent. So
/// this writes all words of the interrupted stack that can be return addresses.
void write_return_addresses(int file, int number, const void* context) {
  constexpr int kMostAddresses = 128;
  constexpr std::size_t kMostBytes = 256 << 10;
  const int memory = ::open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
  if (memory < 0) return;
  (SafeText() << "  above generated code, return addresses on the stack (some may be of calls that have ended):\n")
      .write_to(file);
  const auto from = interrupted_stack(memory, context);
  const int end = number + kMostAddresses;
  std::uintptr_t words[64];
  for (std::uintptr_t at = from; at < from + kMostBytes && number < end; at += sizeof words) {
    const auto got = pread(memory, words, sizeof words, static_cast<off_t>(at));
    for (std::size_t w = 0; got > 0 && w < static_cast<std::size_t>(got) / sizeof words[0] && number < end; ++w) {
      const auto* const address = reinterpret_cast<const void*>(words[w]);
      Dl_info info{};
      if (dladdr(address, &info) != 0 && follows_call(memory, words[w])) write_frame(file, number++, address);
    }
    if (got != static_cast<ssize_t>(sizeof words)) break;
  }
  ::close(memory);
}
#endif

}  // namespace

SafeText& SafeText::operator<<(const char* text) {
  while (*text != '\0' && length_ + 1 < sizeof text_) text_[length_++] = *text++;
  text_[length_] = '\0';
  return *this;
}

SafeText& SafeText::operator<<(std::int64_t value) {
  char digits[24] = "";
  std::to_chars(std::begin(digits), std::end(digits), value);
  return *this << digits;
}

SafeText& SafeText::hex(std::uintptr_t value) {
  char digits[24] = "";
  std::to_chars(std::begin(digits), std::end(digits), value, 16);
  return *this << "0x" << digits;
}

void SafeText::write_to(int file) const {
  [[maybe_unused]] const auto n = ::write(file, text_, length_);
}

void prepare_stacks() {
  void* frames[2];
  backtrace(frames, 2);  // loads the unwinder, which allocates
  dl_iterate_phdr(read_build_id, nullptr);
  main_stack_end = getauxval(AT_RANDOM);  // the kernel puts those bytes above the stack
  struct sigaction action {};
  action.sa_sigaction = on_stack_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;  // see signals.cpp
  sigaction(stack_signal(), &action, nullptr);
}

const char* build_id() {
  return executable_id;
}

void write_frames(int file, std::span<void* const> frames) {
  for (int number = 0; void* const at : frames) write_frame(file, number++, at);
}

void write_stack(int file, [[maybe_unused]] const void* context) {
  void* frames[kMostFrames];
  const int depth = backtrace(frames, kMostFrames);
  write_frames(file, {frames, static_cast<std::size_t>(depth)});
#if defined(__x86_64__)
  Dl_info info{};
  if (context != nullptr && depth > 0 && dladdr(frames[depth - 1], &info) == 0)
    write_return_addresses(file, depth, context);
#endif
}

bool write_stack_of(pthread_t thread, const std::string& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return false;
  (SafeText() << "executable's build id " << build_id() << "\n").write_to(file);
  answered = false;
  wanted_in = file;
  bool sent = pthread_kill(thread, stack_signal()) == 0;
  const auto until = std::chrono::steady_clock::now() + kAnswer;
  while (sent && !answered && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  // Take the request back. If the thread is writing at this moment, the file stays open.
  const bool taken_back = wanted_in.exchange(-1) >= 0;
  if (taken_back || answered) ::close(file);
  return answered;
}

}  // namespace seer::comm
