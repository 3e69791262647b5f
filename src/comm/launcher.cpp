// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/launcher.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>

namespace seer::comm {
namespace {

constexpr const char* kMpirun = "use the mpirun of that MPI";
struct Launcher {
  const char *size, *rank;  ///< environment variables; size "": the launcher sets none
  const char *name, *remedy;
};
// The innermost first: srun may itself start an mpirun, and a process then has the variables of both. Of Slurm only a
// step's variables count, since the script of a job is one process whatever SLURM_NTASKS says.
constexpr Launcher kLaunchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun", kMpirun},
    {"MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK", "MVAPICH's mpirun", kMpirun},
    {"PMI_SIZE", "PMI_RANK", "a launcher with PMI (mpirun of MPICH or Intel MPI, srun --mpi=pmi2)",
     "use the mpirun of that MPI, or srun --mpi=pmix"},
    {"MPI_LOCALNRANKS", "MPI_LOCALRANKID", "mpirun of MPICH or Intel MPI", kMpirun},
    {"JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK", "jsrun", kMpirun},
    {"FLUX_JOB_SIZE", "FLUX_TASK_RANK", "flux run", "use flux run -o mpi=NAME, or the mpirun of that MPI"},
    {"", "PALS_RANKID", "PALS (mpiexec of Cray)", kMpirun},
    {"", "ALPS_APP_PE", "aprun", kMpirun},
    {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun",
     "use srun --mpi=pmix (srun --mpi=list shows what this Slurm supports), or mpirun inside the job"},
    {"", "PMIX_RANK", "a launcher with PMIx", kMpirun},
};

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string_view all(text, static_cast<std::size_t>(length));
  return std::string(all.substr(0, all.find_first_of(",\n")));
}

}  // namespace

int number(const char* text) {
  int value = -1;
  const std::string_view all = text != nullptr ? text : "";
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  return error == std::errc() && end == all.data() + all.size() ? value : -1;
}

std::optional<ForeignLaunch> foreign_launch(const device::Environment& environment) {
  for (const auto& launcher : kLaunchers) {
    const int size = *launcher.size != '\0' ? number(environment(launcher.size)) : -1;
    const int rank = number(environment(launcher.rank));
    if (size == 1) return {};
    if (size < 1 && rank < 1) continue;
    const auto which = *launcher.size != '\0' ? fmt::format("{} and {}", launcher.size, launcher.rank) : launcher.rank;
    return ForeignLaunch{
        Error(
            ExitCode::input,
            fmt::format("{} started {} processes ({}), but MPI ({}) knows only this one", launcher.name,
                        size > 1 ? std::to_string(size) : "several", which, mpi_library()),
            fmt::format("{}; to run independent processes, each with its own files, unset {}", launcher.remedy, which)),
        rank < 1 || size < 1};
  }
  return {};
}

std::string launch_hint(const device::Environment& environment) {
#if defined(OPEN_MPI)
  for (const char* known : {"PMIX_NAMESPACE", "OMPI_COMM_WORLD_SIZE"})
    if (environment(known) != nullptr) return "";
  if (environment("SLURM_STEP_ID") == nullptr || number(environment("SLURM_PROCID")) != 0) return "";
  return "note: srun started this process without PMIx; if Open MPI now fails to start, use srun --mpi=pmix or mpirun";
#else
  static_cast<void>(environment);
  return "";
#endif
}

bool under_mpirun() {
  return std::getenv("OMPI_COMM_WORLD_RANK") != nullptr;
}

}  // namespace seer::comm
