// SPDX-License-Identifier: Apache-2.0
#include "seer/weights/exchange.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

#include "checkpoint/scratch.hpp"

namespace seer {
namespace {

using namespace checkpoint;

using weights::SafetensorsFile;

class Safetensors : public testing::Test {
 protected:
  comm::Communicator world_ = comm::Communicator::world();
  test::Scratch scratch_{world_};
  std::string path_ = scratch_.path() + "/x.safetensors";

  // Writes a file with this header and `data_bytes` bytes 0, 1, 2 ...; `declared`: a wrong length of the header.
  void write(const std::string& header, std::size_t data_bytes, std::uint64_t declared = 0) {
    std::ofstream out(path_, std::ios::binary);
    const std::uint64_t length = declared != 0 ? declared : header.size();
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
    out << header;
    for (std::size_t i = 0; i < data_bytes; ++i) out.put(static_cast<char>(i));
  }
  void expect_refused(const std::string& because) {
    const auto text = test::file_error([&] { SafetensorsFile file(path_); });
    EXPECT_NE(text.find(because), std::string::npos) << text;
  }
};

TEST_F(Safetensors, WrittenAndReadBack) {
  const auto values = test::hash_fill(6, 1, 3);
  const float one = 7;
  weights::write_safetensors(path_,
                             {{"a.weight", {{2, 3}, values.data(), 0}}, {"b", {{1}, &one, 0}}, {"n", {{}, nullptr, 5}}},
                             {{"format", "pt"}});
  const SafetensorsFile file(path_);
  std::vector<std::string> names;
  for (const auto& [name, entry] : file.entries()) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"a.weight", "b", "n"}));
  const auto a = file.read("a.weight");
  EXPECT_EQ(a.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(a.values, values);
  EXPECT_EQ(file.read("b").values, std::vector<float>{7});
  EXPECT_EQ(file.entries().at("n").type, "I64");
  EXPECT_TRUE(file.entries().at("n").shape.empty());
  EXPECT_NE(test::file_error([&] { file.read("n"); }).find("type I64, wanted F32"), std::string::npos);
  EXPECT_NE(test::file_error([&] { file.read("zz"); }).find("no tensor zz"), std::string::npos);
}

TEST_F(Safetensors, OtherFloatsAreConverted) {
  // 1, -2, the smallest subnormal, 65504, infinity; then 1, -2 as bfloat16; then pi as double.
  const std::uint16_t halves[] = {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x7C00}, brains[] = {0x3F80, 0xC000};
  const double pi = 3.14159265358979;
  const std::string header = R"({"h":{"dtype":"F16","shape":[5],"data_offsets":[0,10]},)"
                             R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[10,14]},)"
                             R"("d":{"dtype":"F64","shape":[],"data_offsets":[14,22]}})";
  write(header, 0);
  {
    std::ofstream out(path_, std::ios::binary | std::ios::app);
    out.write(reinterpret_cast<const char*>(halves), sizeof halves);
    out.write(reinterpret_cast<const char*>(brains), sizeof brains);
    out.write(reinterpret_cast<const char*>(&pi), sizeof pi);
  }
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.read("h").values,
            (std::vector<float>{1, -2, 0x1p-24f, 65504, std::numeric_limits<float>::infinity()}));
  EXPECT_EQ(file.read("b").values, (std::vector<float>{1, -2}));
  EXPECT_EQ(file.read("d").values, std::vector<float>{static_cast<float>(pi)});
}

TEST_F(Safetensors, HostileFilesAreRefused) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  write(good, 8);
  EXPECT_EQ(SafetensorsFile(path_).entries().size(), 1u);
  test::file_error([&] { SafetensorsFile file(scratch_.path() + "/none"); });
  std::ofstream(path_) << "abc";
  expect_refused("no safetensors file");
  write(good, 8, 0xFFFFFFFFFFFFFFFFULL);
  expect_refused("header of 18446744073709551615 bytes");
  write(good, 0, good.size() + 1);
  expect_refused("or cut");
  write(good, 7);
  expect_refused("lies at bytes 0 to 8 of 7");
  write(good, 9);
  expect_refused("end at byte 8 of the data, the data at 9");
  write(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8);
  expect_refused("needs 12 bytes and has 8");
  write(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", 8);
  expect_refused("impossible shape");
  write(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8);
  expect_refused("");
  write(R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", 8);
  expect_refused("unknown type F33");
  write(
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      8);
  expect_refused("overlap");
  write(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8);
  expect_refused("gap");
  write(R"({"a":{"dtype":"F32","shape":[2]}})", 8);
  expect_refused("header is not that");
  write(R"([1,2])", 8);
  expect_refused("header is not that");
  write("{\"a\":", 8);
  expect_refused("header is not that");
  write(std::string(1000000, '['), 8);
  expect_refused("nested deeper");
}

}  // namespace
}  // namespace seer
