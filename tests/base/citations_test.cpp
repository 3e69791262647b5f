// SPDX-License-Identifier: Apache-2.0
// Citations in comments, messages and pages are correct: each "method.md 3.2" is a heading of docs/method.md, and each
// docs/PAGE.md exists.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace seer {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = SEER_SOURCE_DIR;

std::string text_of(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::string> matches(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> out;
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) out.push_back((*at)[1]);
  return out;
}

/// Numbers of the method's sections.
std::set<std::string> sections() {
  const auto found = matches(text_of(kRoot / "docs/method.md"), std::regex("\n##+ ([0-9]+(?:\\.[0-9]+)?)"));
  return {found.begin(), found.end()};
}

/// The wrong citations of a text. Pages are named by their path from the root, or, in a page, from its own folder.
std::vector<std::string> dangling(const std::string& text, const std::set<std::string>& method) {
  static const std::regex sections_cited("method\\.md ((?:[0-9]+(?:\\.[0-9]+)?(?:, | and )?)+)");
  static const std::regex number("([0-9]+(?:\\.[0-9]+)?)"), page("\\b(docs/[a-z_]+\\.md)"),
      old("(spec [0-9]|design section)");
  std::vector<std::string> out;
  for (const auto& list : matches(text, sections_cited)) {
    for (const auto& section : matches(list, number)) {
      if (!method.contains(section)) out.push_back("method.md " + section);
    }
  }
  for (const auto& file : matches(text, page)) {
    if (!fs::exists(kRoot / file)) out.push_back(file);
  }
  for (const auto& words : matches(text, old)) out.push_back(words);
  return out;
}

TEST(Citations, AllResolve) {
  const auto method = sections();
  EXPECT_GT(method.size(), 20U);
  std::size_t files = 0;
  for (const auto* folder : {"src", "include", "tests", "docs", "inputs", "jobscripts", "scripts", "validation"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      static const std::set<std::string> kTexts = {".cpp", ".hpp", ".md", ".sh", ".py", ".toml", ".txt"};
      if (!entry.is_regular_file() || !kTexts.contains(entry.path().extension().string()) ||
          entry.path().filename() == "citations_test.cpp") {
        continue;
      }
      for (const auto& what : dangling(text_of(entry.path()), method)) {
        ADD_FAILURE() << fs::relative(entry.path(), kRoot).string() << " cites \"" << what << "\"";
      }
      ++files;
    }
  }
  EXPECT_GT(files, 500U);
  EXPECT_TRUE(dangling(text_of(kRoot / "README.md"), method).empty());
}

TEST(Citations, WhatIsMissingIsSeen) {
  const std::set<std::string> method = {"3", "3.2", "5.1"};
  EXPECT_TRUE(dangling("x (method.md 3.2, 5.1), docs/method.md 3 and docs/layout.md", method).empty());
  EXPECT_EQ(dangling("(method.md 3.2 and 3.9)", method), std::vector<std::string>{"method.md 3.9"});
  EXPECT_EQ(dangling("see docs/nowhere.md", method), std::vector<std::string>{"docs/nowhere.md"});
  EXPECT_EQ(dangling("spec 3.2", method).size(), 1U);
}

}  // namespace
}  // namespace seer
