// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/moments.hpp"

#include <algorithm>

#include "seer/comm/progress.hpp"

namespace seer::eval {
namespace {

constexpr std::size_t kBlockRows = 32, kTogether = 4;

/// products[i, j >= i] += sum over the rows of x[i] x[j]. `rows`: a multiple of kTogether.
void add_products(const double* x, std::size_t rows, std::size_t d, double* products) {
  for (std::size_t i = 0; i < d; ++i) {
    double* const out = products + i * d;
    for (std::size_t r = 0; r < rows; r += kTogether) {
      const double *a = x + r * d, *b = a + d, *c = b + d, *e = c + d;
      const double ai = a[i], bi = b[i], ci = c[i], ei = e[i];
      for (std::size_t j = i; j < d; ++j) out[j] += ai * a[j] + bi * b[j] + ci * c[j] + ei * e[j];
    }
  }
}

}  // namespace

template <class T>
void Moments::add_rows(const T* rows, std::size_t elems) {
  const auto d = static_cast<std::size_t>(dimension_), count = elems / d;
  block_.resize(kBlockRows * d);
  for (std::size_t begin = 0; begin < count; begin += kBlockRows) {
    const std::size_t n = std::min(kBlockRows, count - begin);
    std::copy_n(rows + begin * d, n * d, block_.begin());
    std::fill(block_.begin() + static_cast<std::ptrdiff_t>(n * d), block_.end(), 0.0);  // up to a multiple
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t j = 0; j < d; ++j) sum_[j] += block_[r * d + j];
    add_products(block_.data(), (n + kTogether - 1) / kTogether * kTogether, d, products_.data());
    comm::tell_progress();
  }
  rows_ += static_cast<std::int64_t>(count);
}
template void Moments::add_rows(const float*, std::size_t);
template void Moments::add_rows(const double*, std::size_t);

void Moments::all_reduce(const comm::Communicator& comm) {
  rows_ = comm.all_reduce(rows_, comm::Op::sum);
  comm.all_reduce(std::span(sum_));
  comm.all_reduce(std::span(products_));
}

std::vector<double> Moments::centred() const {
  auto out = products_;
  const auto d = static_cast<std::size_t>(dimension_);
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = i; j < d; ++j) out[i * d + j] -= sum_[i] * sum_[j] / static_cast<double>(rows_);
  return out;
}

}  // namespace seer::eval
