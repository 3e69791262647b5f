// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "seer/base/error.hpp"

namespace seer::comm {
namespace {

void check(int status, const char* call, std::source_location where = std::source_location::current()) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw Error(ExitCode::device, fmt::format("{}: {}", call, std::string(text, static_cast<std::size_t>(length))), "",
              where);
}

MPI_Op mpi_op(Op op) {
  switch (op) {
    case Op::sum:
      return MPI_SUM;
    case Op::max:
      return MPI_MAX;
    case Op::min:
      return MPI_MIN;
  }
  return MPI_SUM;
}

// MPI 3 counts are int: longer messages go in pieces.
constexpr std::size_t kPiece = std::size_t{1} << 28;

template <class T>
void all_reduce_pieces(MPI_Comm comm, std::span<T> values, MPI_Datatype type, Op op) {
  for (std::size_t at = 0; at < values.size(); at += kPiece) {
    const auto count = std::min(kPiece, values.size() - at);
    check(MPI_Allreduce(MPI_IN_PLACE, values.data() + at, static_cast<int>(count), type, mpi_op(op), comm),
          "MPI_Allreduce");
  }
}

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) {
  int provided = 0;
  check(MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
}

MpiSession::~MpiSession() {
  MPI_Finalize();
}

Communicator::Communicator(MPI_Comm comm) : comm_(comm) {
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

Communicator::Communicator(Communicator&& other) noexcept {
  *this = std::move(other);
}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(comm_, other.comm_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  return *this;
}

Communicator::~Communicator() {
  if (comm_ == MPI_COMM_NULL) return;
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0) MPI_Comm_free(&comm_);
}

Communicator Communicator::world() {
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  return Communicator(comm);
}

Communicator Communicator::split(int color) const {
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split(comm_, color, rank_, &comm), "MPI_Comm_split");
  return Communicator(comm);
}

Communicator Communicator::split_groups(int group_size) const {
  if (group_size < 1 || size_ % group_size != 0) {
    throw Error(ExitCode::input, fmt::format("{} ranks cannot be cut into groups of {}", size_, group_size),
                "use a group size that divides the number of ranks")
        .as_agreed();
  }
  return split(rank_ / group_size);
}

Communicator Communicator::node() const {
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &comm), "MPI_Comm_split_type");
  return Communicator(comm);
}

void Communicator::barrier() const {
  check(MPI_Barrier(comm_), "MPI_Barrier");
}

void Communicator::all_reduce(std::span<float> values, Op op) const {
  all_reduce_pieces(comm_, values, MPI_FLOAT, op);
}
void Communicator::all_reduce(std::span<double> values, Op op) const {
  all_reduce_pieces(comm_, values, MPI_DOUBLE, op);
}
void Communicator::all_reduce(std::span<std::int64_t> values, Op op) const {
  all_reduce_pieces(comm_, values, MPI_INT64_T, op);
}

void Communicator::broadcast(void* data, std::size_t bytes, int root) const {
  for (std::size_t at = 0; at < bytes; at += kPiece) {
    const auto count = std::min(kPiece, bytes - at);
    check(MPI_Bcast(static_cast<char*>(data) + at, static_cast<int>(count), MPI_BYTE, root, comm_), "MPI_Bcast");
  }
}

void Communicator::broadcast(std::string& text, int root) const {
  std::int64_t length = static_cast<std::int64_t>(text.size());
  broadcast(&length, sizeof length, root);
  text.resize(static_cast<std::size_t>(length));
  broadcast(text.data(), text.size(), root);
}

std::vector<std::string> Communicator::all_gather(const std::string& mine) const {
  const auto lengths = all_gather(static_cast<std::int64_t>(mine.size()));
  std::vector<int> counts, places;
  std::int64_t total = 0;
  for (auto length : lengths) {
    counts.push_back(static_cast<int>(length));
    places.push_back(static_cast<int>(total));
    total += length;
  }
  ensure(total <= INT_MAX, "all_gather of more than 2 GiB");
  std::string all(static_cast<std::size_t>(total), '\0');
  check(MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(), counts.data(), places.data(),
                       MPI_BYTE, comm_),
        "MPI_Allgatherv");
  std::vector<std::string> out;
  for (int r = 0; r < size_; ++r) {
    out.push_back(all.substr(static_cast<std::size_t>(places[r]), static_cast<std::size_t>(counts[r])));
  }
  return out;
}

void Communicator::all_gather(std::span<const float> mine, std::span<float> out) const {
  ensure(out.size() == mine.size() * static_cast<std::size_t>(size_), "all_gather: output of another size");
  const auto count = static_cast<int>(mine.size());
  check(MPI_Allgather(mine.data(), count, MPI_FLOAT, out.data(), count, MPI_FLOAT, comm_), "MPI_Allgather");
}

namespace {

struct Parts {
  std::vector<int> counts, places;
};
Parts balanced_parts(std::size_t count, int ranks) {
  ensure(count <= INT_MAX, "a message of more elements than MPI 3 can count");
  Parts out;
  for (int r = 0; r < ranks; ++r) {
    const auto begin = balanced_begin(static_cast<std::int64_t>(count), r, ranks);
    out.places.push_back(static_cast<int>(begin));
    out.counts.push_back(static_cast<int>(balanced_begin(static_cast<std::int64_t>(count), r + 1, ranks) - begin));
  }
  return out;
}

}  // namespace

void Communicator::reduce_scatter(std::span<const float> whole, std::span<float> mine) const {
  const auto parts = balanced_parts(whole.size(), size_);
  ensure(mine.size() == static_cast<std::size_t>(parts.counts[static_cast<std::size_t>(rank_)]),
         "reduce_scatter: output of another size");
  check(MPI_Reduce_scatter(whole.data(), mine.data(), parts.counts.data(), MPI_FLOAT, MPI_SUM, comm_),
        "MPI_Reduce_scatter");
}

void Communicator::all_gather_parts(std::span<float> whole) const {
  const auto parts = balanced_parts(whole.size(), size_);
  check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, whole.data(), parts.counts.data(), parts.places.data(),
                       MPI_FLOAT, comm_),
        "MPI_Allgatherv");
}

std::vector<std::int64_t> Communicator::all_gather(std::int64_t mine) const {
  std::vector<std::int64_t> out(static_cast<std::size_t>(size_));
  check(MPI_Allgather(&mine, 1, MPI_INT64_T, out.data(), 1, MPI_INT64_T, comm_), "MPI_Allgather");
  return out;
}

}  // namespace seer::comm
