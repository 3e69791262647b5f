// SPDX-License-Identifier: Apache-2.0
// Who may include whom (docs/layout.md): modules only lower levels, libraries only in the files named here. Reads the
// sources themselves, because the linker does not notice every offence.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

namespace seer {
namespace {

namespace fs = std::filesystem;

const std::map<std::string, int> kLevels = {{"base", 0},       {"config", 1},  {"device", 1}, {"comm", 2},  {"dnn", 2},
                                            {"kernels", 2},    {"h5", 3},      {"watch", 3},  {"nn", 4},    {"data", 4},
                                            {"checkpoint", 5}, {"weights", 6}, {"method", 6}, {"train", 7}, {"eval", 8},
                                            {"run", 9},        {"plan", 10},   {"app", 11}};

struct LibraryRule {
  const char* header;  ///< regular expression, from the start of what is included
  const char* files;   ///< regular expression, path from the repository's root
};
constexpr LibraryRule kLibraries[] = {
    {"Kokkos_", "src/(kernels|device)/[^/]*\\.[ch]pp"},
    {"(oneapi/)?(dnnl/)?dnnl", "src/dnn/.*"},
    {"cuda|cudnn|cublas|nccl|nvtx|nvjpeg",
     "src/[^/]*/cuda/.*|src/kernels/.*|include/seer/(device/cuda|base/half)\\.hpp|src/device/session\\.cpp"},
    {"hdf5\\.h|H5.*\\.h$", "include/seer/h5/file\\.hpp|src/h5/.*"},
    {"mpi\\.h", "include/seer/comm/.*|src/(comm|watch)/.*|src/h5/.*"},
    {"CLI/", "src/app/.*"},
    {"toml\\+\\+/", "src/config/.*"},
    {"(lbfgs|linear)\\.h", "src/eval/.*"},
};

/// A rule of layout.md for one room: what its files must not include.
struct RoomRule {
  const char* files;
  const char* headers;
  const char* because;
};
constexpr RoomRule kRooms[] = {
    {"(include/seer|src)/nn/.*", "seer/comm/.*", "nn knows no MPI: it is handed a reduction"},
    {"(include/seer|src)/train/.*", "seer/(watch|h5)/.*", "train knows no run folder and no signals"},
    {"(include/seer|src)/method/.*", "seer/(h5|watch)/.*|fstream|filesystem", "method knows no files"},
    {"src/nn/trunks/.*", "seer/(dnn/(host|device).*|device/cuda\\.hpp)", "trunks work through dnn::Backend"},
    {"include/seer/(train|nn|run|plan|eval)/.*|src/(train|plan|eval|run)/.*", "seer/nn/(block|architecture)\\.hpp",
     "who uses a trunk knows chains alone"},
    {"(include/seer|src)/(train|run|plan)/.*", "seer/nn/heads\\.hpp|seer/kernels/swav\\.hpp",
     "the heads are the method's"},
};

/// Code that knows one method or one trunk by name; all other code works with any. Comments may name them.
struct NameRule {
  const char* names;
  const char* files;
};
constexpr NameRule kNames[] = {
    {"swav|simclr|byol", "(include/seer|src)/(config|method|kernels)/.*"},
    {"regnet|resnet|resnext", "(include/seer|src)/(config|nn)/.*|src/weights/names\\.cpp|src/app/commands\\.cpp"},
};

/// The rule that this line of code breaks, or "".
std::string known_by_name(const std::string& file, const std::string& line) {
  const std::string code = line.substr(0, line.find("//"));
  for (const auto& rule : kNames) {
    std::smatch match;
    if (std::regex_search(code, match, std::regex(rule.names, std::regex::icase)) &&
        !std::regex_match(file, std::regex(rule.files))) {
      return file + ": " + match[0].str() + " is known in " + rule.files + " only";
    }
  }
  return "";
}

struct Include {
  std::string file;  ///< path from the repository's root
  int line;
  std::string header;
};

std::vector<Include> includes_of(const std::string& file, std::istream& text) {
  static const std::regex pattern("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"]");
  std::vector<Include> out;
  std::string line;
  for (int number = 1; std::getline(text, line); ++number) {
    std::smatch match;
    if (std::regex_search(line, match, pattern)) out.push_back({file, number, match[1]});
  }
  return out;
}

std::string module_of(const std::string& file) {
  static const std::regex pattern("^(?:src|include/seer)/([^/]+)/");
  std::smatch match;
  return std::regex_search(file, match, pattern) ? match[1].str() : "";
}

/// What is wrong with this include, or "".
std::string offence(const Include& include) {
  const std::string place = include.file + ":" + std::to_string(include.line) + ": ";
  const std::string from = module_of(include.file);
  if (!kLevels.contains(from))
    return place + "module " + from + " has no level; add it to this test and docs/layout.md";
  static const std::regex ours("^seer/([^/]+)/");
  std::smatch match;
  if (std::regex_search(include.header, match, ours)) {
    const std::string to = match[1];
    if (!kLevels.contains(to)) return place + "includes unknown module " + to;
    if (to != from && kLevels.at(to) >= kLevels.at(from)) return place + from + " may not include " + to;
  }
  // A module's device files may include the headers of the folder above theirs.
  const bool beside = std::regex_match(include.file, std::regex("src/[^/]+/cuda/[^/]+")) &&
                      std::regex_match(include.header, std::regex("\\.\\./[^./]+\\.hpp"));
  if (include.header.find("..") != std::string::npos && !beside) {
    return place + "reaches out of its folder: " + include.header;
  }
  for (const auto& rule : kRooms) {
    if (std::regex_match(include.file, std::regex(rule.files)) &&
        std::regex_match(include.header, std::regex(rule.headers))) {
      return place + include.header + ": " + rule.because;
    }
  }
  for (const auto& rule : kLibraries) {
    if (std::regex_search(include.header, std::regex(std::string("^(?:") + rule.header + ")")) &&
        !std::regex_match(include.file, std::regex(rule.files))) {
      return place + include.header + " is allowed in " + rule.files + " only";
    }
  }
  return "";
}

TEST(Levels, EveryFileIncludesOnlyWhatItMay) {
  const fs::path root = SEER_SOURCE_DIR;
  int files = 0, headers = 0;
  for (const char* folder : {"src", "include/seer"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (const auto kind = entry.path().extension(); kind != ".cpp" && kind != ".hpp" && kind != ".cu") continue;
      ++files;
      std::ifstream text(entry.path());
      for (const auto& include : includes_of(fs::relative(entry.path(), root).generic_string(), text)) {
        ++headers;
        EXPECT_EQ(offence(include), "");
      }
    }
  }
  EXPECT_GT(files, 40);
  EXPECT_GT(headers, 200);
}

TEST(Levels, MethodsAndTrunksAreKnownByNameOnlyWhereTheyAreMade) {
  const fs::path root = SEER_SOURCE_DIR;
  for (const char* folder : {"src", "include/seer"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file()) continue;
      const std::string file = fs::relative(entry.path(), root).generic_string();
      std::ifstream text(entry.path());
      for (std::string line; std::getline(text, line);) EXPECT_EQ(known_by_name(file, line), "");
    }
  }
}

// The rules must find offences.
TEST(Levels, OffencesAreSeen) {
  EXPECT_NE(known_by_name("src/train/learner.cpp", "if (config.method.kind == \"simclr\") {"), "");
  EXPECT_NE(known_by_name("src/plan/memory.cpp", "  const nn::RegNetY trunk(model);"), "");
  EXPECT_EQ(known_by_name("src/train/learner.cpp", "loss();  // SwAV's"), "");
  EXPECT_NE(offence({"src/nn/conv.cpp", 1, "seer/comm/communicator.hpp"}), "");
  EXPECT_NE(offence({"src/h5/file.cpp", 1, "seer/nn/model.hpp"}), "");
  EXPECT_NE(offence({"src/base/log.cpp", 1, "seer/config/config.hpp"}), "");
  EXPECT_NE(offence({"include/seer/eval/knn.hpp", 1, "seer/run/trainer.hpp"}), "");
  EXPECT_NE(offence({"include/seer/kernels/swav.hpp", 1, "Kokkos_Core.hpp"}), "");
  EXPECT_NE(offence({"src/nn/conv.cpp", 1, "dnnl.hpp"}), "");
  EXPECT_NE(offence({"src/dnn/backend.cpp", 1, "cudnn.h"}), "");
  EXPECT_NE(offence({"include/seer/comm/stream.hpp", 1, "cuda_runtime_api.h"}), "");
  EXPECT_EQ(offence({"src/dnn/cuda/conv.cpp", 1, "cudnn.h"}), "");
  EXPECT_NE(offence({"src/nn/conv.cpp", 1, "oneapi/dnnl/dnnl.hpp"}), "");
  EXPECT_NE(offence({"src/checkpoint/save.cpp", 1, "hdf5.h"}), "");
  EXPECT_NE(offence({"src/run/trainer.cpp", 1, "mpi.h"}), "");
  EXPECT_NE(offence({"src/eval/knn.cpp", 1, "CLI/CLI.hpp"}), "");
  EXPECT_NE(offence({"src/app/main.cpp", 1, "toml++/toml.h"}), "");
  EXPECT_NE(offence({"src/app/main.cpp", 1, "../config/schema.hpp"}), "");
  EXPECT_EQ(offence({"src/dnn/cuda/conv.cpp", 1, "../direction.hpp"}), "");
  EXPECT_NE(offence({"src/dnn/cuda/conv.cpp", 1, "../../nn/layers.hpp"}), "");
  EXPECT_NE(offence({"src/utils/misc.cpp", 1, "vector"}), "");
  EXPECT_EQ(offence({"src/nn/conv.cpp", 1, "seer/dnn/backend.hpp"}), "");
  EXPECT_EQ(offence({"src/kernels/swav.cpp", 1, "Kokkos_Core.hpp"}), "");
  EXPECT_EQ(offence({"src/h5/trial.cpp", 1, "mpi.h"}), "");
  EXPECT_NE(offence({"src/app/eval_svm.cpp", 1, "linear.h"}), "");
  EXPECT_EQ(offence({"src/eval/svm.cpp", 1, "linear.h"}), "");
  std::istringstream text("// #include \"seer/app/x.hpp\"\n  #  include <mpi.h>\n#include \"seer/base/log.hpp\"\n");
  const auto found = includes_of("src/x/y.cpp", text);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].line, 2);
  EXPECT_EQ(found[1].header, "seer/base/log.hpp");
}

}  // namespace
}  // namespace seer
