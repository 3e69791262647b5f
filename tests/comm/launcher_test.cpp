// SPDX-License-Identifier: Apache-2.0
// Environment variables as launchers set them, for a process that is alone according to MPI.
#include "seer/comm/launcher.hpp"

#include <gtest/gtest.h>

#include <mpi.h>

#include <map>
#include <string>

namespace seer::comm {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<ForeignLaunch> launched(const Variables& variables) {
  return foreign_launch([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(ForeignLaunch, OneProcessIsNone) {
  const Variables script = {{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "8"},  {"SLURM_NPROCS", "8"},
                            {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_TASKS_PER_NODE", "8"}};
  EXPECT_FALSE(launched({}));
  EXPECT_FALSE(launched(script)) << "the script of a job";
  EXPECT_FALSE(launched({{"SLURM_JOB_ID", "7"}, {"SLURM_NTASKS", "8"}})) << "a shell of salloc";
  EXPECT_FALSE(launched({{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_STEP_ID", "3"}, {"SLURM_PROCID", "0"}}));
  EXPECT_FALSE(launched({{"PMI_SIZE", "1"}, {"PMI_RANK", "0"}, {"MPI_LOCALNRANKS", "1"}}));
  EXPECT_FALSE(launched({{"PMIX_RANK", "0"}, {"PALS_RANKID", "0"}}));
  Variables mpirun_on_second_node = {{"OMPI_COMM_WORLD_SIZE", "1"}, {"OMPI_COMM_WORLD_RANK", "0"}};
  mpirun_on_second_node.insert({{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "1"}});
  EXPECT_FALSE(launched(mpirun_on_second_node)) << "srun started mpirun's daemons, not the ranks";
}

TEST(ForeignLaunch, NamesTheLauncherAndTheRemedyAndTellsWhoSpeaks) {
  const struct {
    Variables variables;
    std::string launcher, remedy;
    bool first;
  } cases[] = {
      {{{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "0"}}, "srun started 2 processes", "--mpi=pmix", true},
      {{{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_PROCID", "1"}}, "srun started 2 processes", "--mpi=pmix", false},
      {{{"SLURM_NTASKS", "2"}, {"SLURM_PROCID", "1"}}, "srun started several", "--mpi=pmix", true},
      {{{"PMI_SIZE", "4"}, {"PMI_RANK", "0"}}, "MPICH", "mpirun of that MPI", true},
      {{{"PMI_RANK", "3"}}, "MPICH", "mpirun of that MPI", true},
      {{{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}}, "Open MPI's mpirun", "of that MPI", false},
      {{{"MV2_COMM_WORLD_SIZE", "2"}, {"MV2_COMM_WORLD_RANK", "0"}}, "MVAPICH", "mpirun of that MPI", true},
      {{{"MPI_LOCALNRANKS", "2"}, {"MPI_LOCALRANKID", "0"}}, "Intel MPI", "mpirun of that MPI", true},
      {{{"JSM_NAMESPACE_SIZE", "2"}, {"JSM_NAMESPACE_RANK", "0"}}, "jsrun", "mpirun of that MPI", true},
      {{{"FLUX_JOB_SIZE", "2"}, {"FLUX_TASK_RANK", "0"}}, "flux run", "-o mpi", true},
      {{{"PALS_RANKID", "1"}}, "PALS", "mpirun of that MPI", true},
      {{{"PMIX_RANK", "1"}}, "PMIx", "mpirun of that MPI", true},
  };
  for (const auto& c : cases) {
    const auto found = launched(c.variables);
    ASSERT_TRUE(found) << c.launcher;
    EXPECT_EQ(found->error.code(), ExitCode::input);
    EXPECT_NE(found->error.message().find(c.launcher), std::string::npos) << found->error.message();
    EXPECT_NE(found->error.message().find(c.remedy), std::string::npos) << found->error.message();
    EXPECT_EQ(found->first, c.first) << found->error.message();
  }
}

TEST(ForeignLaunch, HintComesBeforeOpenMpiFailsUnderSrunWithoutPmix) {
  const auto hint = [](const Variables& v) {
    return launch_hint([&](const char* name) { return v.contains(name) ? v.at(name).c_str() : nullptr; });
  };
  const Variables step = {{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}};
  EXPECT_EQ(hint({}), "");
  EXPECT_EQ(hint({{"SLURM_PROCID", "0"}}), "") << "the script of a job";
  for (const char* known : {"PMIX_NAMESPACE", "OMPI_COMM_WORLD_SIZE"}) {
    auto with = step;
    with[known] = "1";
    EXPECT_EQ(hint(with), "");
  }
#if defined(OPEN_MPI)
  EXPECT_NE(hint(step).find("--mpi=pmix"), std::string::npos);
#endif
}

}  // namespace
}  // namespace seer::comm
