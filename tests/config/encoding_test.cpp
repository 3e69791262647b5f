// SPDX-License-Identifier: Apache-2.0
// Text files as other editors write them: run configurations and machine files.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "seer/base/error.hpp"
#include "seer/config/config.hpp"
#include "seer/config/machine.hpp"

namespace seer::config {
namespace {

// UTF-16 of ASCII text, little-endian, with its mark.
std::string utf16(const std::string& text) {
  std::string out = "\xFF\xFE";
  for (const char c : text) out += {c, '\0'};
  return out;
}

template <class F>
std::string refusal(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    return e.what();
  }
  return "accepted";
}

TEST(Encoding, ConfigurationsMayHaveAMarkAndWindowsLines) {
  const auto plain = parse("[log]\nevery = 3\n", "a", {});
  EXPECT_EQ(parse("\xEF\xBB\xBF[log]\r\nevery = 3\r\n", "a", {}), plain);
  EXPECT_NE(refusal([] { parse(utf16("[log]\nevery = 3\n"), "run.toml", {}); }).find("run.toml: found UTF-16 text"),
            std::string::npos);
}

TEST(Encoding, MachineFilesToo) {
  std::ostringstream copy;
  copy << std::ifstream(std::string(SEER_SOURCE_DIR) + "/inputs/machines/dgx_h100.toml").rdbuf();
  const std::string text = copy.str();
  const std::string path = testing::TempDir() + fmt::format("seer_encoding_test_{}.toml", text.size());
  std::ofstream(path, std::ios::binary) << "\xEF\xBB\xBF" << text;
  EXPECT_FALSE(load_machine(path).name.empty());
  std::ofstream(path, std::ios::binary) << utf16(text);
  EXPECT_NE(refusal([&] { load_machine(path); }).find("found UTF-16 text, wanted UTF-8"), std::string::npos);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace seer::config
