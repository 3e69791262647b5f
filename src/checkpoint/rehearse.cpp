// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <filesystem>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/folders.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace {

// A different row for every rank, so that mixed-up places in the file are noticed.
std::vector<float> row_of(int rank) {
  constexpr std::size_t kRow = 4099;
  Random random(0, Purpose::rehearsal, static_cast<std::uint64_t>(rank));
  std::vector<float> row(kRow);
  for (auto& value : row) value = static_cast<float>(random.uniform(-1, 1));
  return row;
}

}  // namespace

void rehearse(const comm::Communicator& comm, const std::string& run_dir) {
  namespace fs = std::filesystem;
  // If checkpoints/ is a link, rehearse where it leads.
  const auto home = checkpoints_folder(run_dir);
  const fs::path scratch = (fs::is_symlink(home) ? home : fs::path(run_dir)) / ".rehearsal";
  const auto remove = [&] {
    std::error_code ec;
    if (comm.is_root()) fs::remove_all(scratch, ec);
  };
  auto written = row_of(comm.rank());
  const auto n = static_cast<std::int64_t>(written.size());
  const auto slab = [&](std::vector<float>& row, int place) {
    return std::vector<Slab>{{"model", "rehearsal", {comm.size(), n}, row.data(), place * n, (place + 1) * n}};
  };
  State state;
  state.update = 1;
  state.ranks = comm.size();
  state.method.tensors["rehearsal"] = {{n}, row_of(-1)};
  try {
    const auto folder = save(comm, scratch, slab(written, comm.rank()), state);
    // Each rank reads what its neighbour wrote, since its own data might come from its own cache.
    const int neighbour = (comm.rank() + 1) % comm.size();
    std::vector<float> read(written.size());
    const auto found = load(comm, folder, slab(read, neighbour));
    comm::agree(comm, "checking the rehearsal of a checkpoint", [&] {
      if (read != row_of(neighbour) || tensor_values(found) != tensor_values(state)) {
        throw Error(ExitCode::file, fmt::format("a checkpoint written under {} reads back differently", run_dir),
                    "this file system does not show one node what another has written: try another log.run_dir");
      }
    });
  } catch (const Error& e) {
    remove();
    const auto told =
        Error(e.code(), fmt::format("rehearsal of a checkpoint failed: {}", e.what()), e.remedy()).at(e.where());
    throw e.agreed() ? told.as_agreed() : told;
  }
  remove();
  comm.barrier();
}

}  // namespace seer::checkpoint
