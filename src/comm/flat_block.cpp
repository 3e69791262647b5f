// SPDX-License-Identifier: Apache-2.0
// Collectives on flat blocks: sums that may be sent in 16 bits, and blocks of which every rank owns a part.
#include <algorithm>
#include <climits>
#include <type_traits>

#include "record.hpp"
#include "rounds.hpp"
#include "seer/base/error.hpp"
#include "seer/base/half.hpp"

namespace seer::comm {
namespace {

template <class Element>
void add_halves(void* in, void* in_out, int* count, MPI_Datatype*) {
  const auto* a = static_cast<const Element*>(in);
  auto* b = static_cast<Element*>(in_out);
  for (int i = 0; i < *count; ++i) b[i] = Element(static_cast<float>(a[i]) + static_cast<float>(b[i]));
}

/// MPI's sum of elements that are sent. For 16 bits, created at first use and never freed.
template <class Element>
MPI_Op sum_of() {
  if (std::is_same_v<Element, float>) return MPI_SUM;
  static const MPI_Op op = [] {
    MPI_Op made = MPI_OP_NULL;
    check(MPI_Op_create(&add_halves<Element>, /*commute=*/1, &made), "MPI_Op_create");
    return made;
  }();
  return op;
}

template <class Element>
MPI_Datatype type_of() {
  return std::is_same_v<Element, float> ? MPI_FLOAT : MPI_UINT16_T;
}

/// Calls run.operator()<Element>() for the type that is sent.
template <class Run>
void with_wire(DType wire, Run&& run) {
  if (wire == DType::bf16) return run.template operator()<BFloat16>();
  if (wire == DType::f16) return run.template operator()<Float16>();
  ensure(wire == DType::f32, "sums over ranks are sent as f32, bf16 or f16");
  run.template operator()<float>();
}

template <class From, class To>
void convert(const From* from, std::size_t count, To* to) {
  std::transform(from, from + count, to, [](From value) { return To(static_cast<float>(value)); });
}

}  // namespace

void* Communicator::staging(std::size_t bytes) const {
  if (ledger() != nullptr) {
    record_->planned_staging = std::max(record_->planned_staging, bytes);
    return nullptr;
  }
  record_->staging.resize(std::max(record_->staging.size(), bytes));
  return record_->staging.data();
}

void Communicator::sum(std::span<float> values, DType wire, std::size_t staging_bytes) const {
  if (size_ == 1) return;
  if (wire == DType::f32) return all_reduce(values);
  const auto mark = enter(Kind::all_reduce, values.size() * dtype_bytes(wire));
  with_wire(wire, [&]<class Element>() {
    const auto most = std::min(std::clamp<std::size_t>(staging_bytes / sizeof(Element), 1, INT_MAX), values.size());
    auto* stage = static_cast<Element*>(staging(most * sizeof(Element)));
    if (!mark) return;
    expect_host(values.data());
    for (std::size_t at = 0; at < values.size(); at += most) {
      const auto elems = std::min(most, values.size() - at);
      convert(values.data() + at, elems, stage);
      check(MPI_Allreduce(MPI_IN_PLACE, stage, static_cast<int>(elems), type_of<Element>(), sum_of<Element>(), comm_),
            "MPI_Allreduce");
      convert(stage, elems, values.data() + at);
    }
  });
}

void Communicator::reduce_scatter_parts(std::span<float> whole, DType wire, std::size_t staging_bytes) const {
  if (size_ == 1) return;
  const auto mark = enter(Kind::reduce_scatter, whole.size() * dtype_bytes(wire));
  with_wire(wire, [&]<class Element>() {
    const Rounds rounds(whole.size(), size_, staging_bytes / sizeof(Element));
    auto* stage = static_cast<Element*>(staging(rounds.most_elems() * sizeof(Element)));
    if (!mark) return;
    expect_host(whole.data());
    rounds.each([&](std::int64_t at, std::int64_t width) {
      auto& counts = record_->counts;
      counts.assign(static_cast<std::size_t>(size_), static_cast<int>(width));
      for (int r = 0; r < size_; ++r) {
        const auto elems = rounds.elems(r, at, width);
        convert(whole.data() + rounds.begin(r, at), elems, stage + r * width);
        std::fill(stage + r * width + elems, stage + (r + 1) * width, Element(0.0F));
      }
      // Open MPI 4 implements MPI_Reduce_scatter_block as a reduction and a scatter, three times as slow.
      check(MPI_Reduce_scatter(MPI_IN_PLACE, stage, counts.data(), type_of<Element>(), sum_of<Element>(), comm_),
            "MPI_Reduce_scatter");
      convert(stage, rounds.elems(rank_, at, width), whole.data() + rounds.begin(rank_, at));
    });
  });
}

void Communicator::all_gather_parts(std::span<float> whole, std::size_t most_elems, std::size_t staging_bytes) const {
  if (size_ == 1) return;
  const auto mark = enter(Kind::all_gather, whole.size_bytes());
  if (whole.size() <= most_elems) {
    if (!mark) return;
    expect_host(whole.data());
    auto &counts = record_->counts, &places = record_->places;
    counts.clear();
    places.clear();
    for (int r = 0; r < size_; ++r) {
      const auto all = static_cast<std::int64_t>(whole.size());
      places.push_back(static_cast<int>(balanced_begin(all, r, size_)));
      counts.push_back(static_cast<int>(balanced_begin(all, r + 1, size_)) - places.back());
    }
    check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, whole.data(), counts.data(), places.data(), MPI_FLOAT,
                         comm_),
          "MPI_Allgatherv");
    return;
  }
  const Rounds rounds(whole.size(), size_, staging_bytes / sizeof(float));
  auto* stage = static_cast<float*>(staging(rounds.most_elems() * sizeof(float)));
  if (!mark) return;
  expect_host(whole.data());
  rounds.each([&](std::int64_t at, std::int64_t width) {
    float* mine = stage + rank_ * width;
    std::copy_n(whole.data() + rounds.begin(rank_, at), rounds.elems(rank_, at, width), mine);
    check(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, stage, static_cast<int>(width), MPI_FLOAT, comm_),
          "MPI_Allgather");
    for (int r = 0; r < size_; ++r)
      std::copy_n(stage + r * width, rounds.elems(r, at, width), whole.data() + rounds.begin(r, at));
  });
}

}  // namespace seer::comm
