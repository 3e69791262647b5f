// SPDX-License-Identifier: Apache-2.0
// A queue that allocates only while it grows: items that pass through in every update cost no allocation.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace seer::comm {

template <class T>
class Fifo {
 public:
  bool empty() const { return first_ == items_.size(); }
  std::size_t size() const { return items_.size() - first_; }
  T& front() { return items_[first_]; }
  T& operator[](std::size_t i) { return items_[first_ + i]; }
  void reserve(std::size_t items) { items_.reserve(items); }
  void push_back(T item) {
    // Reuse the places of removed items before allocating more.
    if (items_.size() == items_.capacity() && first_ > 0) {
      items_.erase(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
    items_.push_back(std::move(item));
  }
  void pop_front() {
    if (++first_ == items_.size()) clear();
  }
  void clear() {
    items_.clear();
    first_ = 0;
  }
  auto begin() { return items_.begin() + static_cast<std::ptrdiff_t>(first_); }
  auto end() { return items_.end(); }

 private:
  std::vector<T> items_;
  std::size_t first_ = 0;
};

}  // namespace seer::comm
