// SPDX-License-Identifier: Apache-2.0
// The message for each kind of malformed or damaged shard.
#include <algorithm>
#include <filesystem>

#include "seer/data/pack.hpp"
#include "shard_support.hpp"

namespace seer::data {
namespace {

TEST(Shard, TruncatedOrShrunkFilesAreRefused) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  write_shard(path, 0, 200);
  const auto whole = test::read_bytes(path);
  for (std::size_t length = 1; length < whole.size(); length += 97) {
    test::write_bytes(path, whole.data(), length);
    ASSERT_NE(error_of([&] { DataSet::open(path, world); }), "no error") << length;
  }
  test::write_bytes(path, whole.data(), whole.size());
  const auto set = DataSet::open(path, world);
  std::filesystem::resize_file(path, set.shards()[0].pixels_offset + 3);
  std::vector<std::uint8_t> bytes;
  EXPECT_NE(error_of([&] { set.read_image(199, bytes); }).find("early"), std::string::npos);
}

/// A shard built by hand, with one thing wrong.
struct Malformed {
  const char* name;
  const char* message;
  std::function<void(h5::File&)> spoil;  ///< called last; leaves out what it makes itself
  std::vector<std::string> without;      ///< data sets not made
};

template <class T>
void make(h5::File& f, const std::string& name, Type type, const std::vector<T>& values) {
  f.create_dataset(name, type, {values.size()});
  f.write(name, type, 0, values.size(), values.data());
}

void raw_dataset(const std::string& path, const std::string& name, hid_t type, hsize_t count, bool chunked,
                 bool deflate, const char* external) {
  h5::Id file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
  h5::Id space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  h5::Id list(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const hsize_t chunk = 2;
  if (chunked) H5Pset_chunk(list, 1, &chunk);
  if (deflate) H5Pset_deflate(list, 1);
  if (external != nullptr) H5Pset_external(list, external, 0, H5F_UNLIMITED);
  h5::Id made(H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, list, H5P_DEFAULT), H5Dclose);
  ASSERT_GE(made, 0);
}

TEST(Shard, EveryMalformedVariantHasItsMessage) {
  const auto world = comm::Communicator::world();
  const std::vector<std::uint32_t> sides = {1, 2, 3};
  const std::vector<std::uint64_t> offsets = {0, 2, 4, 6}, sums = {7, 8, 9};
  const std::vector<std::int32_t> labels = {0, 1, -1};
  const std::vector<std::uint8_t> bytes(6, 1);
  const std::vector<Malformed> variants = {
      {"good", "no error", [](h5::File&) {}, {}},
      {"no format", "no attribute format", [](h5::File&) {}, {"format"}},
      {"other format", "\"seer-weights\"", [](h5::File& f) { f.set("/", "format", std::string("seer-weights")); }, {}},
      {"format is a number", "is not text", [](h5::File& f) { f.set("/", "format", std::int64_t{1}); }, {}},
      {"version 3", "version 3", [](h5::File& f) { f.set("/", "version", std::int64_t{3}); }, {}},
      {"version 2 without targets",
       "has no /images/target_begin",
       [](h5::File& f) { f.set("/", "version", std::int64_t{2}); },
       {}},
      {"no version", "no attribute version", [](h5::File&) {}, {"version"}},
      {"classes are a number", "is not text", [](h5::File& f) { f.set("/", "classes", 1.0); }, {}},
      {"no bytes", "has no /images/bytes", [](h5::File&) {}, {"/images/bytes"}},
      {"no offset", "has no /images/offset", [](h5::File&) {}, {"/images/offset"}},
      {"no width", "has no /images/width", [](h5::File&) {}, {"/images/width"}},
      {"no height", "has no /images/height", [](h5::File&) {}, {"/images/height"}},
      {"no checksum", "has no /images/checksum", [](h5::File&) {}, {"/images/checksum"}},
      {"offset short",
       "/images/offset has 3 entries, wanted 4",
       [](h5::File& f) {
         make<std::uint64_t>(f, "/images/offset", Type::u64, {0, 2, 6});
       },
       {"/images/offset"}},
      {"height long",
       "/images/height has 4 entries, wanted 3",
       [](h5::File& f) {
         make<std::uint32_t>(f, "/images/height", Type::u32, {1, 2, 3, 4});
       },
       {"/images/height"}},
      {"checksum short",
       "/images/checksum has 1 entries, wanted 3",
       [](h5::File& f) { make<std::uint64_t>(f, "/images/checksum", Type::u64, {1}); },
       {"/images/checksum"}},
      {"label long",
       "/images/label has 4 entries, wanted 3",
       [](h5::File& f) {
         make<std::int32_t>(f, "/images/label", Type::i32, {1, 2, 3, 4});
       },
       {"/images/label"}},
      {"names short",
       "/images/name has 1 entries, wanted 3",
       [](h5::File& f) { f.create_strings("/images/name", {"x"}); },
       {}},
      {"names are numbers",
       "not a list of fixed-length strings",
       [](h5::File& f) {
         make<std::uint64_t>(f, "/images/name", Type::u64, {1, 2, 3});
       },
       {}},
      {"offset not to the end",
       "runs from 0 to 5, wanted 0 to 6",
       [](h5::File& f) {
         make<std::uint64_t>(f, "/images/offset", Type::u64, {0, 2, 4, 5});
       },
       {"/images/offset"}},
      {"offset not from 0",
       "runs from 1 to 6, wanted 0 to 6",
       [](h5::File& f) {
         make<std::uint64_t>(f, "/images/offset", Type::u64, {1, 2, 4, 6});
       },
       {"/images/offset"}},
      {"bytes of another type",
       "/images/bytes is of another type, wanted uint8",
       [](h5::File& f) {
         make<std::uint32_t>(f, "/images/bytes", Type::u32, {1, 2, 3, 4, 5, 6});
       },
       {"/images/bytes"}},
      {"offset signed",
       "/images/offset is of another type, wanted uint64",
       [](h5::File& f) {
         make<std::int64_t>(f, "/images/offset", Type::i64, {0, 2, 4, 6});
       },
       {"/images/offset"}},
      {"bytes of two dimensions",
       "/images/bytes has 2 dimensions, wanted 1",
       [](h5::File& f) {
         f.create_dataset("/images/bytes", Type::u8, {2, 3});
       },
       {"/images/bytes"}},
      {"bytes are a group",
       "/images/bytes is not a data set",
       [](h5::File& f) { f.create_group("/images/bytes"); },
       {"/images/bytes"}},
      {"bytes chunked", "wanted contiguous", nullptr, {"/images/bytes"}},
      {"bytes deflated", "wanted contiguous", nullptr, {"/images/bytes"}},
      {"bytes elsewhere", "wanted contiguous", nullptr, {"/images/bytes"}},
      {"bytes never written", "wanted contiguous", nullptr, {"/images/bytes"}},
      {"names of any length", "not a list of fixed-length strings", nullptr, {}},
      {"soft link", "soft link", nullptr, {"/images/bytes"}},
      {"external link", "external", nullptr, {"/images/bytes"}},
      {"format of any length", "variable-length", nullptr, {"format"}},
  };
  test::TemporaryFolder folder;
  for (const auto& v : variants) {
    const auto path = folder / "m.h5";
    auto left_out = [&](const char* name) {
      return std::find(v.without.begin(), v.without.end(), name) != v.without.end();
    };
    {
      auto f = h5::File::create(path);
      if (!left_out("format")) f.set("/", "format", std::string("seer-shard"));
      if (!left_out("version")) f.set("/", "version", std::int64_t{1});
      f.create_group("/images");
      if (!left_out("/images/width")) make(f, "/images/width", Type::u32, sides);
      if (!left_out("/images/height")) make(f, "/images/height", Type::u32, sides);
      if (!left_out("/images/offset")) make(f, "/images/offset", Type::u64, offsets);
      if (!left_out("/images/checksum")) make(f, "/images/checksum", Type::u64, sums);
      if (!left_out("/images/label")) make(f, "/images/label", Type::i32, labels);
      if (!left_out("/images/bytes")) make(f, "/images/bytes", Type::u8, bytes);
      if (v.spoil) v.spoil(f);
      f.close();
    }
    const std::string name = v.name;
    if (name == "bytes chunked") raw_dataset(path, "/images/bytes", H5T_STD_U8LE, 6, true, false, nullptr);
    if (name == "bytes deflated") raw_dataset(path, "/images/bytes", H5T_STD_U8LE, 6, true, true, nullptr);
    if (name == "bytes elsewhere") raw_dataset(path, "/images/bytes", H5T_STD_U8LE, 6, false, false, "/etc/hostname");
    if (name == "bytes never written") raw_dataset(path, "/images/bytes", H5T_STD_U8LE, 6, false, false, nullptr);
    h5::Id text(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(text, H5T_VARIABLE);
    if (name == "names of any length") raw_dataset(path, "/images/name", text, 3, false, false, nullptr);
    if (name.ends_with("link") || name.starts_with("format of")) {
      h5::Id file(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
      if (name == "soft link") H5Lcreate_soft("/images/width", file, "/images/bytes", H5P_DEFAULT, H5P_DEFAULT);
      if (name == "external link") {
        H5Lcreate_external("/etc/x.h5", "/b", file, "/images/bytes", H5P_DEFAULT, H5P_DEFAULT);
      }
      if (name.starts_with("format of")) {
        h5::Id space(H5Screate(H5S_SCALAR), H5Sclose);
        h5::Id attribute(H5Acreate2(file, "format", text, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
        const char* value = "seer-shard";
        H5Awrite(attribute, text, &value);
      }
    }
    const auto message = error_of([&] { read_shard_info(path, world); });
    EXPECT_NE(message.find(v.message), std::string::npos) << v.name << ": " << message;
  }
}

TEST(Shard, OffsetsThatFallAreFoundWhenTheyAreRead) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  write_shard(path, 0, 5);
  {
    auto f = h5::File::open(path, nullptr, true);
    const std::uint64_t value = 1000;
    f.write("/images/offset", Type::u64, 2, 1, &value);
    f.close();
  }
  const auto set = DataSet::open(path, world);
  EXPECT_EQ(set.places(0, 1).size(), 1U);
  EXPECT_NE(error_of([&] { set.places(0, 5); }).find("image 1 lies at"), std::string::npos);
}

TEST(Shard, DamagedBytesOfTheFileNeverDoHarm) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  write_shard(path, 0, 5);
  const auto whole = test::read_bytes(path);
  // Changes bytes of HDF5's own structures. Such bytes have crashed HDF5 before; the process must survive each one.
  for (std::size_t at = 0; at < std::min<std::size_t>(whole.size(), 2048); at += 13) {
    auto bytes = whole;
    bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ 0x5A);
    test::write_bytes(path, bytes.data(), bytes.size());
    const auto message = error_of([&] { DataSet::open(path, world); });
    if (message == "no error") continue;  // this byte has no meaning
    ASSERT_NE(message.find(path), std::string::npos) << message;
  }
}

TEST(Shard, InspectCounts) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  write_shard(path, 0, 9);
  const auto text = inspect_hdf5(path, false, alone);
  for (const char* part : {"\"kind\":\"shard\"", "\"images\":9", "\"images_per_class\":{\"cat\":3,\"dog\":3}",
                           "\"images_without_label\":3", "\"width_range\":[10,18]"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
}

TEST(Shard, InspectVerifiesBytesAndSizes) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  test::TemporaryFolder folder;
  SynthOptions options;
  options.folder = folder / "set";
  options.classes = 2;
  options.images = 9;
  options.size = 16;
  synth(options, alone);
  const auto path = DataSet::open(options.folder, alone).shards().front().path;
  const auto whole = test::read_bytes(path);
  EXPECT_NE(inspect_hdf5(path, true, alone).find("\"verified\":true"), std::string::npos);
  const auto info = read_shard_info(path, alone);
  const auto damaged = [&](std::uint64_t at) {
    auto bytes = whole;
    bytes[at] ^= 1;
    test::write_bytes(path, bytes.data(), bytes.size());
    return inspect_hdf5(path, true, alone);
  };
  const std::string one = "\"verified\":false,\"damaged_count\":1,\"damaged\":[{\"image\":";
  const auto rotten = damaged(info.pixels_offset);
  EXPECT_NE(rotten.find(one + "0,\"problem\":\"its bytes have the checksum"), std::string::npos) << rotten;
  const auto other_width = damaged(info.width_offset + 4 * 5);
  EXPECT_NE(other_width.find(one + "5,\"problem\":\"/images/width and height say 17 x 16"), std::string::npos)
      << other_width;
}

}  // namespace
}  // namespace seer::data
