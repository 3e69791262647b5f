// SPDX-License-Identifier: Apache-2.0
// Values as bytes, to send them to other ranks. Writing and reading are the same calls, so one function fields(bytes,
// x) lists the members of a struct for both. Private to the module.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/comm/communicator.hpp"

namespace seer::data {

class Packed {
 public:
  /// Appends the values of calls to text().
  Packed() = default;
  /// Sets the values of calls to those that were written, in the same order.
  explicit Packed(std::string written) : text_(std::move(written)), reads_(true) {}

  /// Takes plain values, texts, vectors, and structs with fields().
  template <class... T>
  void operator()(T&... values) {
    (visit(values), ...);
  }
  std::string& text() { return text_; }
  bool at_end() const { return at_ == text_.size(); }

 private:
  template <class T>
  void visit(T& value) {
    if constexpr (std::is_trivially_copyable_v<T>) {
      copy(&value, sizeof value);
    } else if constexpr (requires { value.resize(0); }) {
      std::uint64_t size = value.size();
      visit(size);
      if (reads_) value.resize(size);
      if constexpr (std::is_same_v<T, std::string>) return copy(value.data(), size);
      for (auto& each : value) visit(each);
    } else {
      fields(*this, value);
    }
  }
  void copy(void* value, std::size_t bytes) {
    if (!reads_) {
      text_.append(static_cast<const char*>(value), bytes);
      return;
    }
    ensure(bytes <= text_.size() - at_, "another rank sent fewer bytes than it announced");
    std::memcpy(value, text_.data() + at_, bytes);
    at_ += bytes;
  }
  std::string text_;
  bool reads_ = false;
  std::size_t at_ = 0;
};

/// Collective. Gives every rank the values of rank 0.
void share(const comm::Communicator& comm, auto&... values) {
  Packed out;
  if (comm.is_root()) out(values...);
  comm.broadcast(out.text());
  Packed in(std::move(out.text()));
  if (!comm.is_root()) in(values...);
}

}  // namespace seer::data
