// SPDX-License-Identifier: Apache-2.0
// Reads the file back with a separate decoder of the protobuf wire format, so that a wrong field number in event.proto
// is noticed.
#include "seer/run/records.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <vector>

#include "run/temporary_folder.hpp"
#include "seer/base/error.hpp"

namespace seer::run {
namespace {

using namespace train;

template <class T>
T value_at(const std::string& bytes, std::size_t offset) {
  T value;
  if (offset + sizeof(T) > bytes.size()) throw std::runtime_error("short");
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

std::vector<std::string> read_records(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream all;
  all << in.rdbuf();
  const std::string bytes = all.str();
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto length = value_at<std::uint64_t>(bytes, at);
    EXPECT_EQ(value_at<std::uint32_t>(bytes, at + 8), masked_crc32c(bytes.substr(at, 8)));
    const auto data = bytes.substr(at + 12, length);
    EXPECT_EQ(value_at<std::uint32_t>(bytes, at + 12 + length), masked_crc32c(data));
    records.push_back(data);
    at += 16 + length;
  }
  return records;
}

// One level of a protobuf message: field number -> raw values (varints as 8 bytes, little-endian).
std::multimap<int, std::string> fields_of(const std::string& message) {
  std::multimap<int, std::string> fields;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<std::uint64_t>(byte & 0x7fU) << shift;
      if ((byte & 0x80U) == 0) return value;
    }
  };
  while (at < message.size()) {
    const auto key = varint();
    std::size_t length = 0;
    switch (key & 7U) {
      case 0: {
        const auto value = varint();
        fields.emplace(static_cast<int>(key >> 3), std::string(reinterpret_cast<const char*>(&value), 8));
        continue;
      }
      case 1:
        length = 8;
        break;
      case 2:
        length = varint();
        break;
      case 5:
        length = 4;
        break;
      default:
        throw std::runtime_error("wire type");
    }
    fields.emplace(static_cast<int>(key >> 3), message.substr(at, length));
    at += length;
  }
  return fields;
}

TEST(EventFile, Crc32cOfKnownStrings) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(""), 0U);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);    // RFC 3720 B.4
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43U);  // RFC 3720 B.4
}

TEST(EventFile, HoldsTheRecordUnderTensorBoardsFieldNumbers) {
  const TemporaryFolder folder;
  EventFile file(folder.path(), 30);
  UpdateRecord r;
  r.update = 40;
  r.loss = 3.25;
  r.method = "swav";
  r.figures = {{"code_entropy", 1.5}};
  file.write(r);
  const auto records = read_records(file.path());
  ASSERT_EQ(records.size(), 3U);

  EXPECT_EQ(fields_of(records[0]).find(3)->second, "brain.Event:2");
  auto start = fields_of(records[1]);
  EXPECT_EQ(value_at<std::int64_t>(start.find(2)->second, 0), 31);
  EXPECT_EQ(value_at<std::uint64_t>(fields_of(start.find(7)->second).find(1)->second, 0), 1U);

  auto event = fields_of(records[2]);
  EXPECT_GT(value_at<double>(event.find(1)->second, 0), 1.6e9);
  EXPECT_EQ(value_at<std::int64_t>(event.find(2)->second, 0), 40);
  std::map<std::string, float> values;
  const auto summary = fields_of(event.find(5)->second);
  for (auto [it, end] = summary.equal_range(1); it != end; ++it) {
    const auto value = fields_of(it->second);
    ASSERT_EQ(value.count(2), 1U) << value.find(1)->second;  // zeros too: TensorBoard drops a value without a number
    values[value.find(1)->second] = value_at<float>(value.find(2)->second, 0);
  }
  EXPECT_EQ(values.size(), scalars(r).size() - 1);
  EXPECT_EQ(values.at("train/loss"), 3.25F);
  EXPECT_EQ(values.at("swav/code_entropy"), 1.5F);
  EXPECT_EQ(values.count("time/step_ms"), 1U);
  EXPECT_EQ(values.count("memory/host_bytes"), 1U);
}

TEST(EventFile, TwoStartsInOneSecondMakeTwoFiles) {
  const TemporaryFolder folder;
  const EventFile first(folder.path(), 0), second(folder.path(), 0);
  EXPECT_NE(first.path(), second.path());
  EXPECT_LT(first.path(), second.path());  // TensorBoard reads a run's files in the order of their names
}

TEST(EventFile, MissingFolderIsAFileError) {
  const TemporaryFolder folder;
  try {
    const EventFile file(folder.path() + "/missing", 0);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::file);
  }
}

}  // namespace
}  // namespace seer::run
