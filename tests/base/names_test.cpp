// SPDX-License-Identifier: Apache-2.0
#include "seer/base/names.hpp"

#include <gtest/gtest.h>

namespace seer {
namespace {

TEST(Utf8, WhatIsAndWhatIsNot) {
  for (const char* good :
       {"", "cat", "caf\xC3\xA9", "\xE7\x8C\xAB", "\xF0\x9F\x90\xB1", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
    EXPECT_EQ(utf8_name(good), good);
  }
  // A single byte, cut off, overlong, a surrogate, beyond the last character, a continuation alone.
  for (const char* bad :
       {"caf\xE9", "\xE7\x8C", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\x80"}) {
    EXPECT_FALSE(is_utf8(bad));
    EXPECT_TRUE(is_utf8(utf8_name(bad)));
  }
}

TEST(Utf8, NamesStayApart) {
  EXPECT_EQ(utf8_name("caf\xE9"), "caf\\xE9");
  EXPECT_EQ(utf8_name("caf\\xE9"), "caf\\x5CxE9");  // though no byte is escaped
  EXPECT_EQ(utf8_name("\xE7\x8C x"), "\\xE7\\x8C x");
  EXPECT_EQ(utf8_name("C:\\x\\xyz"), "C:\\x\\xyz");  // no escapes: unchanged
}

TEST(Utf8, ByteOrderMarks) {
  std::string text =
      "\xEF\xBB\xBF"
      "a\xEF\xBB\xBF";
  EXPECT_EQ(remove_byte_order_mark(text), "");
  EXPECT_EQ(text, "a\xEF\xBB\xBF");
  text = std::string(
      "\xFF\xFE"
      "a\0",
      4);
  EXPECT_TRUE(remove_byte_order_mark(text).starts_with("found UTF-16 text, wanted UTF-8"));
  text = std::string(
      "\xFF\xFE\0\0"
      "a\0\0\0",
      8);
  EXPECT_TRUE(remove_byte_order_mark(text).starts_with("found UTF-32 text"));
}

TEST(Names, TheFirstFewAreListed) {
  const std::vector<std::string> names = {"a", "b", "c"};
  EXPECT_EQ(few_names(names), "a, b, c");
  EXPECT_EQ(few_names(names, 1), "a and 2 more");
  EXPECT_EQ(few_names({}), "");
}

}  // namespace
}  // namespace seer
