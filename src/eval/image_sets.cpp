// SPDX-License-Identifier: Apache-2.0
// Which images two tables are of, by their checksums.
#include <fmt/format.h>

#include <algorithm>

#include "seer/base/checksum.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

void ImageSetSum::add(std::span<const std::uint64_t> checksums) {
  for (const auto sum : checksums) {
    sums_[0] += 1;
    sums_[1] += static_cast<std::int64_t>(sum >> 32);
    sums_[2] += static_cast<std::int64_t>(sum & 0xffffffff);
  }
}

std::string ImageSetSum::fingerprint(const comm::Communicator& comm) const {
  auto sums = sums_;
  comm.all_reduce(std::span(sums));
  return fmt::format("{:016x}", checksum(sums.data(), sizeof(sums)));
}

std::vector<std::uint64_t> checksums(const data::DataSet& data, std::uint64_t first, std::uint64_t count) {
  constexpr std::uint64_t kPiece = 65536;
  std::vector<std::uint64_t> out;
  out.reserve(count);
  for (std::uint64_t at = 0; at < count; at += kPiece)
    for (const auto& place : data.places(first + at, std::min(kPiece, count - at))) out.push_back(place.checksum);
  return out;
}

std::vector<std::uint64_t> my_checksums(const data::DataSet& data, const comm::Communicator& comm) {
  const auto first = slice_begin(data.images(), comm.rank(), comm.size());
  std::vector<std::uint64_t> out;
  comm::agree(comm, "reading checksums",
              [&] { out = checksums(data, first, slice_begin(data.images(), comm.rank() + 1, comm.size()) - first); });
  return out;
}

std::int64_t count_common(const comm::Communicator& comm, std::span<const std::uint64_t> train,
                          std::span<const std::uint64_t> test) {
  constexpr std::uint64_t kPiece = 1 << 20;
  std::vector<bool> common(test.size());
  std::vector<std::uint64_t> piece;
  for (int owner = 0; owner < comm.size(); ++owner) {
    std::uint64_t count = train.size();
    comm.broadcast(&count, sizeof count, owner);
    for (std::uint64_t at = 0; at < count; at += piece.size()) {
      piece.resize(std::min(kPiece, count - at));
      if (comm.rank() == owner)
        std::copy_n(train.begin() + static_cast<std::ptrdiff_t>(at), piece.size(), piece.begin());
      comm.broadcast(piece.data(), piece.size() * sizeof(std::uint64_t), owner);
      std::ranges::sort(piece);
      for (std::size_t i = 0; i < test.size(); ++i)
        if (!common[i] && std::ranges::binary_search(piece, test[i])) common[i] = true;
    }
  }
  return comm.all_reduce(static_cast<std::int64_t>(std::ranges::count(common, true)), comm::Op::sum);
}

void warn_of_common(const comm::Communicator& comm, std::span<const std::uint64_t> train, const std::string& train_name,
                    std::span<const std::uint64_t> test, const std::string& test_name) {
  const auto common = count_common(comm, train, test);
  const auto of_train = comm.all_reduce(static_cast<std::int64_t>(train.size()), comm::Op::sum);
  const auto of_test = comm.all_reduce(static_cast<std::int64_t>(test.size()), comm::Op::sum);
  if (common == 0) return;
  constexpr const char* kSense =
      "each such image is its own nearest neighbour, so the accuracy does not hold for new images";
  log::warn(common == of_test && of_train == of_test
                ? fmt::format("training set {} and test set {} are the same {} images: {}", train_name, test_name,
                              of_test, kSense)
                : fmt::format("{} of the {} images of the test set {} are in the training set {} as well: {}", common,
                              of_test, test_name, train_name, kSense));
}

}  // namespace seer::eval
