// SPDX-License-Identifier: Apache-2.0
#include "seer/h5/file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <numeric>

#include "data/temporary.hpp"
#include "seer/base/error.hpp"

namespace seer::h5 {
namespace {

template <class F>
std::string error_of(F&& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file);
    return e.what();
  }
  return "no error";
}

TEST(H5, AttributesAndGroupsComeBack) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    auto file = File::create(path);
    file.create_group("/g");
    file.set("/", "text", std::string("grün"));
    file.set("/", "empty", std::string());
    file.set("/g", "number", std::int64_t{-7});
    file.set("/g", "real", 0.1);
    file.set("/", "many", std::vector<std::string>{"a", "", "longest"});
    file.set("/", "text", std::string("again"));
    // More than the 64 KB that old attributes can hold: class names of a large data set.
    file.set("/", "large", std::vector<std::string>(5000, std::string(40, 'x')));
    file.close();
  }
  auto file = File::open(path);
  EXPECT_EQ(file.get_string("/", "text"), "again");
  EXPECT_EQ(file.get_string("/", "empty"), "");
  EXPECT_EQ(file.get_int("/g", "number"), -7);
  EXPECT_EQ(file.get_double("/g", "real"), 0.1);
  EXPECT_EQ(file.get_strings("/", "many"), (std::vector<std::string>{"a", "", "longest"}));
  EXPECT_EQ(file.get_strings("/", "large").at(4999).size(), 40U);
  EXPECT_EQ(file.attributes("/g"), (std::vector<std::string>{"number", "real"}));
  EXPECT_TRUE(file.has("/g", "real"));
  EXPECT_FALSE(file.has("/g", "text"));
  EXPECT_TRUE(file.exists("/g"));
  EXPECT_FALSE(file.exists("/g/none"));
  EXPECT_EQ(file.list("/"), std::vector<std::string>{"g"});
  EXPECT_NE(error_of([&] { file.get_int("/", "text"); }).find("is not an integer"), std::string::npos);
  EXPECT_NE(error_of([&] { file.get_string("/", "none"); }).find("has no attribute none"), std::string::npos);
}

TEST(H5, TextsThatAreNoUtf8AreEscaped) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    auto file = File::create(path);
    file.set("/", "text", std::string("caf\xE9.h5"));
    file.set("/", "list", std::vector<std::string>{"caf\xE9", "caf\xC3\xA9", "C:\\x41"});
    file.create_strings("/names", {"\xFF.png"});
    file.close();
  }
  auto file = File::open(path);
  EXPECT_EQ(file.get_string("/", "text"), "caf\\xE9.h5");
  EXPECT_EQ(file.get_strings("/", "list"), (std::vector<std::string>{"caf\\xE9", "caf\xC3\xA9", "C:\\x41"}));
  EXPECT_EQ(file.describe_strings("/names").second, 8U);
}

TEST(H5, FlatRangesOfAnyRankAreRowMajor) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  const std::vector<Dims> shapes = {{7}, {3, 5}, {2, 3, 4}, {2, 3, 2, 3}, {1, 1, 1, 1}, {4, 1, 3}};
  for (std::size_t s = 0; s < shapes.size(); ++s) {
    std::uint64_t n = 1;
    for (auto d : shapes[s]) n *= d;
    auto file = File::create(path);
    file.create_dataset("/x", Type::i32, shapes[s]);
    for (std::uint64_t begin = 0; begin <= n; ++begin) {
      for (std::uint64_t count = 0; begin + count <= n; ++count) {
        std::vector<std::int32_t> zeros(n, -1);
        file.write("/x", Type::i32, 0, n, zeros.data());
        std::vector<std::int32_t> values(count);
        std::iota(values.begin(), values.end(), static_cast<std::int32_t>(begin));
        file.write("/x", Type::i32, begin, count, values.data());
        const auto all = file.read_all<std::int32_t>("/x", Type::i32);
        for (std::uint64_t i = 0; i < n; ++i) {
          ASSERT_EQ(all[i], i >= begin && i < begin + count ? static_cast<std::int32_t>(i) : -1);
        }
        std::vector<std::int32_t> back(count);
        file.read("/x", Type::i32, begin, count, back.data());
        ASSERT_EQ(back, values);
      }
    }
  }
}

TEST(H5, DescriptionSaysWhereThePlainBytesLie) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  const std::vector<std::uint64_t> values = {1, 2, 1ULL << 63};
  {
    auto file = File::create(path);
    file.create_dataset("/x", Type::u64, {3});
    file.write("/x", Type::u64, 0, 3, values.data());
    file.create_dataset("/none", Type::u8, {0});
    file.create_dataset("/scalar", Type::f64, {});
    const double half = 0.5;
    file.write("/scalar", Type::f64, 0, 1, &half);
    file.close();
  }
  auto file = File::open(path);
  const auto d = file.describe("/x");
  EXPECT_TRUE(d.plain);
  EXPECT_EQ(d.type, Type::u64);
  EXPECT_EQ(d.dims, Dims{3});
  EXPECT_EQ(d.bytes, 24U);
  const auto bytes = test::read_bytes(path);
  ASSERT_LE(d.file_offset + 24, bytes.size());
  EXPECT_EQ(std::memcmp(bytes.data() + d.file_offset, values.data(), 24), 0);
  EXPECT_TRUE(file.describe("/none").plain);
  EXPECT_EQ(file.read_all<double>("/scalar", Type::f64), std::vector<double>{0.5});
  std::uint64_t x = 0;
  EXPECT_NE(error_of([&] { file.read("/x", Type::u64, 3, 1, &x); }).find("has 3 elements, wanted [3, 4)"),
            std::string::npos);
  EXPECT_NE(error_of([&] { file.describe("/missing"); }).find("there is no /missing"), std::string::npos);
}

TEST(H5, EqualCallsMakeEqualBytes) {
  test::TemporaryFolder folder;
  auto make = [&](const std::string& name) {
    auto file = File::create(folder / name);
    file.create_group("/g");
    file.create_dataset("/g/x", Type::f32, {3});
    const float values[3] = {1, 2, 3};
    file.write("/g/x", Type::f32, 0, 3, values);
    file.set("/", "a", std::string("b"));
    file.close();
    return test::read_bytes(folder / name);
  };
  const auto first = make("1.h5");
  sleep(1);  // a stored time of change would differ
  EXPECT_EQ(make("2.h5"), first);
}

TEST(H5, BrokenAndMissingFilesAreOneMessage) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  EXPECT_NE(error_of([&] { File::open(path); }).find("No such file"), std::string::npos);
  EXPECT_NE(error_of([&] { File::open(folder.path()); }).find("Is a directory"), std::string::npos);
  test::write_bytes(path, "", 0);
  EXPECT_NE(error_of([&] { File::open(path); }).find("is empty"), std::string::npos);
  test::write_bytes(path, "hello, this is no HDF5", 22);
  EXPECT_NE(error_of([&] { File::open(path); }).find("cannot be opened as HDF5"), std::string::npos);
  EXPECT_NE(error_of([&] { File::create(folder / "no/such/folder.h5"); }).find("No such file"), std::string::npos);
  {
    auto file = File::create(path);
    file.create_dataset("/x", Type::u8, {100000});
    file.close();
  }
  auto bytes = test::read_bytes(path);
  test::write_bytes(path, bytes.data(), bytes.size() / 2);
  EXPECT_NE(error_of([&] { File::open(path); }).find("truncated"), std::string::npos);
  EXPECT_NE(error_of([&] { File::create(path, nullptr, false); }).find("creating"), std::string::npos);
}

TEST(H5, LinksOutOfTheFileAreRefused) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    Id file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    ASSERT_GE(H5Lcreate_external("/etc/other.h5", "/x", file, "ext", H5P_DEFAULT, H5P_DEFAULT), 0);
    ASSERT_GE(H5Lcreate_soft("/y", file, "soft", H5P_DEFAULT, H5P_DEFAULT), 0);
  }
  auto file = File::open(path);
  EXPECT_NE(error_of([&] { file.list("/"); }).find("external"), std::string::npos);
  EXPECT_NE(error_of([&] { file.describe("/soft"); }).find("soft link"), std::string::npos);
  EXPECT_NE(error_of([&] { file.describe("/ext/deeper"); }).find("external"), std::string::npos);
}

TEST(H5, MoreElementsThanTheStoredBytesCanHoldAreRefused) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    Id file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    const hsize_t huge[2] = {1ULL << 40, 1ULL << 10}, chunk[2] = {64, 64};
    Id space(H5Screate_simple(2, huge, nullptr), H5Sclose);
    Id list(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(list, 2, chunk);
    Id data(H5Dcreate2(file, "x", H5T_STD_U8LE, space, H5P_DEFAULT, list, H5P_DEFAULT), H5Dclose);
    ASSERT_GE(data, 0);
  }
  auto file = File::open(path);
  EXPECT_FALSE(file.describe("/x").plain);
  EXPECT_NE(error_of([&] { file.read_all<std::uint8_t>("/x", Type::u8); }).find("more than its stored data"),
            std::string::npos);
}

TEST(H5, TrialSurvivesWhatKillsHdf5) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    auto file = File::create(path);
    file.set("/", "a", std::string("b"));
    file.close();
  }
  EXPECT_EQ(trial(path, [](const File& f) { return f.get_string("/", "a"); }), "b");
  EXPECT_NE(error_of([&] { trial(path, [](const File& f) { return f.get_string("/", "c"); }); }).find("no attribute c"),
            std::string::npos);
  const auto crash = error_of([&] {
    trial(path, [](const File&) -> std::string {
      std::raise(SIGSEGV);
      return "";
    });
  });
  EXPECT_NE(crash.find("HDF5 crashed"), std::string::npos) << crash;
}

}  // namespace
}  // namespace seer::h5
