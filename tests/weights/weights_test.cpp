// SPDX-License-Identifier: Apache-2.0
// Weights files, and import and export of whole models.
#include "seer/weights/weights.hpp"

#include <gtest/gtest.h>

#include <array>

#include "checkpoint/scratch.hpp"
#include "seer/h5/file.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/model.hpp"
#include "seer/weights/exchange.hpp"

namespace seer {
namespace {

using namespace checkpoint;

using weights::Naming;
using weights::Weights;

// A tiny model with a different value in every element.
Weights tiny(bool head, bool batchnorm) {
  Weights w;
  w.model.preset = "tiny";
  w.head.dims.clear();
  w.head.prototypes = 0;
  const auto features = nn::architecture(w.model).back().width;
  if (head) {
    w.head.dims = {features, 12, 8};
    w.head.batchnorm = batchnorm;
    w.head.prototypes = 5;
  }
  const nn::Model net(w.model, nn::projection_heads(w.head));
  std::uint64_t seed = 0;
  for (const auto& [table, group] :
       {std::pair(&net.parameters(), &w.parameters), std::pair(&net.buffers(), &w.buffers)}) {
    for (const auto& e : table->entries()) {
      (*group)[e.name] = {e.shape, test::hash_fill(static_cast<std::size_t>(e.elems), ++seed, 1)};
    }
  }
  return w;
}

void expect_equal(const std::map<std::string, weights::HostTensor>& a,
                  const std::map<std::string, weights::HostTensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    ASSERT_TRUE(b.contains(name)) << name;
    EXPECT_EQ(tensor.shape, b.at(name).shape) << name;
    EXPECT_EQ(tensor.values, b.at(name).values) << name;
  }
}

void expect_equal(const Weights& a, const Weights& b) {
  EXPECT_EQ(a.model.preset, b.model.preset);
  EXPECT_EQ(a.model.width_rule, b.model.width_rule);
  EXPECT_EQ(a.model.depth, b.model.depth);
  EXPECT_EQ(a.model.wa, b.model.wa);
  EXPECT_EQ(a.head.dims, b.head.dims);
  EXPECT_EQ(a.head.batchnorm, b.head.batchnorm);
  EXPECT_EQ(a.head.prototypes, b.head.prototypes);
  expect_equal(a.parameters, b.parameters);
  expect_equal(a.buffers, b.buffers);
  expect_equal(a.classifier, b.classifier);
}

class WeightsFile : public testing::Test {
 protected:
  comm::Communicator world_ = comm::Communicator::world();
  test::Scratch scratch_{world_};
  std::string at(const std::string& name) const { return scratch_.path() + "/" + name; }
};

TEST_F(WeightsFile, WrittenAndReadBack) {
  for (const auto& w : {tiny(true, true), tiny(true, false), tiny(false, false)}) {
    weights::write_weights(at("w.h5"), w);
    expect_equal(weights::read_weights(at("w.h5")), w);
  }
  EXPECT_FALSE(test::fs::exists(at("w.h5.tmp")));
}

TEST_F(WeightsFile, NumbersInsteadOfAPreset) {
  auto w = tiny(false, false);
  w.model = {.preset = "",
             .width_rule = "torchvision",
             .depth = 4,
             .w0 = 16,
             .wa = 16,
             .wm = 2,
             .group_width = 8,
             .init_from = ""};
  weights::write_weights(at("w.h5"), w);
  const auto read = weights::read_weights(at("w.h5"));
  expect_equal(read, w);
  EXPECT_EQ(read.model.group_width, 8);
  EXPECT_EQ(read.model.wm, 2);
}

TEST_F(WeightsFile, FromACheckpoint) {
  const auto w = tiny(true, false);
  config::Config config;
  config.model.preset = "tiny";
  config.head = w.head;
  auto state = test::some_state(3, 1);
  state.config_toml = config::to_toml(config);
  std::vector<checkpoint::Slab> slabs;
  auto values = w;
  for (const auto& [group, tensors] : {std::pair("model", &values.parameters), std::pair("buffers", &values.buffers),
                                       std::pair("momentum", &values.parameters)}) {
    for (auto& [name, t] : *tensors)
      slabs.push_back({group, name, t.shape, t.values.data(), 0, static_cast<std::int64_t>(t.values.size())});
  }
  const auto folder = checkpoint::save(world_, scratch_.path(), slabs, state);
  expect_equal(weights::read_weights(folder), w);
  expect_equal(weights::read_weights(folder + "/state.h5"), w);
  EXPECT_TRUE(weights::read_weights(folder).momentum.empty());
  const auto whole = weights::read_weights(folder, {.momentum = true});
  expect_equal(whole.momentum, w.parameters);
  EXPECT_EQ(whole.about.at("optimizer"), "lars");
  EXPECT_EQ(whole.about.at("classes"), weights::classes_text(state.classes));
  EXPECT_EQ(weights::describe_weights(folder).about, whole.about);
  test::flip_byte(folder + "/state.h5", test::fs::file_size(folder + "/state.h5") - 3);
  EXPECT_NE(test::file_error([&] { weights::read_weights(folder); }).find("another checksum"), std::string::npos);
}

// What a run has beside its weights goes through weights files and safetensors files with the same bits, and is read
// only if it is asked for.
TEST_F(WeightsFile, ExtrasAreKept) {
  auto w = tiny(true, true);
  w.momentum = w.teacher = w.parameters;
  w.teacher.insert(w.buffers.begin(), w.buffers.end());
  w.method["more.0.weight"] = {{2, 3}, test::hash_fill(6, 40, 1)};
  for (auto& [name, tensor] : w.teacher) tensor.values[0] += 1;
  w.about["optimizer"] = "sgd";
  weights::write_weights(at("w.h5"), w);
  const weights::Extras all{.method = true, .momentum = true, .teacher = true};
  const auto expect_extras = [&](const Weights& read) {
    expect_equal(read, w);
    weights::visit_extras([&](auto&, auto tensors, auto) { expect_equal(read.*tensors, w.*tensors); });
    EXPECT_EQ(read.about.at("optimizer"), "sgd");
  };
  expect_extras(weights::read_weights(at("w.h5"), all));
  const auto plain = weights::read_weights(at("w.h5"));
  expect_equal(plain, w);
  EXPECT_TRUE(plain.momentum.empty() && plain.teacher.empty() && plain.method.empty());
  for (const auto naming : {weights::Naming::torchvision, weights::Naming::vissl}) {
    weights::export_safetensors(at("w.safetensors"), w, naming);
    expect_extras(weights::import_safetensors(at("w.safetensors"), {}, weights::Naming::automatic).weights);
  }
  weights::export_safetensors(at("w.safetensors"), w, weights::Naming::torchvision);
  const auto teacher =
      weights::import_safetensors(at("w.safetensors"), {}, weights::Naming::automatic, "teacher").weights;
  EXPECT_EQ(teacher.parameters.at("stem.0.weight").values, w.teacher.at("stem.0.weight").values);
  EXPECT_TRUE(teacher.momentum.empty());
}

TEST_F(WeightsFile, FilesThatAreNone) {
  test::file_error([&] { weights::read_weights(at("none.h5")); });
  std::ofstream(at("text.h5")) << "hello";
  test::file_error([&] { weights::read_weights(at("text.h5")); });
  {
    auto file = h5::File::create(at("other.h5"));
    file.set("/", "format", std::string("seer-shard"));
    file.set("/", "version", std::int64_t{1});
    file.close();
  }
  const auto text = test::file_error([&] { weights::read_weights(at("other.h5")); });
  EXPECT_NE(text.find("format is \"seer-shard\", wanted \"seer-weights\" or \"seer-checkpoint\""), std::string::npos)
      << text;
  auto w = tiny(false, false);
  w.parameters.erase("stem.1.bias");
  weights::write_weights(at("w.h5"), w);
  const auto missing = test::file_error([&] { weights::read_weights(at("w.h5")); });
  EXPECT_NE(missing.find("1 missing: stem.1.bias"), std::string::npos) << missing;
}

TEST_F(WeightsFile, ExportedAndImportedWithEitherNames) {
  for (auto w : {tiny(true, true), tiny(true, false), tiny(false, false)}) {
    w.classifier["fc.weight"] = {{3, 2}, {1, 2, 3, 4, 5, 6}};
    w.classifier["fc.bias"] = {{3}, {7, 8, 9}};
    for (const auto naming : {Naming::torchvision, Naming::vissl}) {
      weights::export_safetensors(at("w.safetensors"), w, naming);
      for (const auto reading : {naming, Naming::automatic}) {
        auto back = weights::import_safetensors(at("w.safetensors"), w.model, reading);
        EXPECT_TRUE(back.ignored.empty());
        if (naming == Naming::vissl) back.weights.classifier = w.classifier;  // not part of VISSL's trunk
        expect_equal(back.weights, w);
      }
    }
    const weights::SafetensorsFile vissl(at("w.safetensors"));
    const std::string prefix = w.head.dims.empty() ? "" : "trunk.";
    EXPECT_TRUE(vissl.entries().contains(prefix + "_feature_blocks.conv1.stem.1.num_batches_tracked"));
    EXPECT_EQ(vissl.entries().contains("heads.0.projection_head.1.num_batches_tracked"), w.head.batchnorm);
  }
}

TEST_F(WeightsFile, ABiasWithoutItsWeightIsNoClassifier) {
  auto w = tiny(false, false);
  w.classifier["fc.bias"] = {{3}, {7, 8, 9}};
  weights::export_safetensors(at("w.safetensors"), w, Naming::torchvision);
  const auto back = weights::import_safetensors(at("w.safetensors"), w.model, Naming::automatic);
  EXPECT_TRUE(back.weights.classifier.empty());
  EXPECT_EQ(back.ignored, std::vector<std::string>{"fc.bias"});
}

TEST_F(WeightsFile, MismatchesAreNamed) {
  const auto w = tiny(true, false);
  weights::export_safetensors(at("w.safetensors"), w, Naming::torchvision);
  auto other = w.model;
  other.preset = "200mf";
  auto text = test::file_error([&] { weights::import_safetensors(at("w.safetensors"), other, Naming::automatic); });
  // The head's width is wrong for that trunk; the trunk's own mismatch must be what is named.
  EXPECT_NE(text.find("does not fit preset 200mf"), std::string::npos) << text;
  EXPECT_NE(text.find("trunk_output.block1.block1-0.proj.0.weight has shape [16, 32, 1, 1], wanted [24, 32, 1, 1]"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find(" missing: trunk_output.block"), std::string::npos) << text;

  auto broken = w;
  broken.parameters["stem.0.weight"] = {{32, 3, 1, 1}, std::vector<float>(96)};
  broken.parameters.erase("stem.1.weight");
  broken.parameters["trunk_output.block9.block9-0.f.a.0.weight"] = {{1}, {1}};
  broken.parameters["loss.queue"] = {{1}, {1}};
  weights::export_safetensors(at("w.safetensors"), broken, Naming::torchvision);
  text = test::file_error([&] { weights::import_safetensors(at("w.safetensors"), w.model, Naming::automatic); });
  EXPECT_NE(text.find("stem.0.weight has shape [32, 3, 1, 1], wanted [32, 3, 3, 3]; 1 missing: stem.1.weight; "
                      "1 unexpected: trunk_output.block9.block9-0.f.a.0.weight"),
            std::string::npos)
      << text;
  auto extra = w;
  extra.parameters["loss.queue"] = {{1}, {1}};
  weights::export_safetensors(at("w.safetensors"), extra, Naming::torchvision);
  EXPECT_EQ(weights::import_safetensors(at("w.safetensors"), w.model, Naming::automatic).ignored,
            std::vector<std::string>{"loss.queue"});

  // VISSL's names read as torchvision's are not recognised at all.
  weights::export_safetensors(at("w.safetensors"), tiny(false, false), Naming::vissl);
  text = test::file_error([&] { weights::import_safetensors(at("w.safetensors"), w.model, Naming::torchvision); });
  EXPECT_NE(text.find(" missing: stem.0.weight"), std::string::npos) << text;
}

TEST_F(WeightsFile, TwoNamesOfOneTensor) {
  const float x = 1;
  weights::write_safetensors(at("w.safetensors"), {{"stem.1.bias", {{1}, &x, 0}}, {"module.stem.1.bias", {{1}, &x, 0}}},
                             {});
  const auto text = test::file_error(
      [&] { weights::import_safetensors(at("w.safetensors"), tiny(false, false).model, Naming::automatic); });
  EXPECT_NE(text.find("module.stem.1.bias and stem.1.bias are both stem.1.bias"), std::string::npos) << text;
}

// All tensors of `w` under the name that `rename` gives them.
template <class Rename>
void write_renamed(const std::string& path, const Weights& w, Rename rename) {
  std::map<std::string, weights::SafetensorsItem> items;
  for (const auto* group : {&w.parameters, &w.buffers}) {
    for (const auto& [name, t] : *group) items[rename(name)] = {t.shape, t.values.data(), 0};
  }
  weights::write_safetensors(path, items, {});
}

TEST_F(WeightsFile, PrefixesAreTakenOffAndToldAndOneOfSeveralNetworksIsChosen) {
  const auto w = tiny(false, false);
  const auto path = at("w.safetensors");
  write_renamed(path, w, [](const std::string& name) { return "module._orig_mod.backbone." + name; });
  const auto back = weights::import_safetensors(path, w.model, Naming::automatic);
  expect_equal(back.weights, w);
  const auto tensors = static_cast<std::int64_t>(w.parameters.size() + w.buffers.size());
  EXPECT_EQ(back.prefixes, (std::map<std::string, std::int64_t>{{"module._orig_mod.backbone.", tensors}}));

  auto teacher = w;
  teacher.parameters["stem.1.bias"].values[0] = 77;
  auto both = w;
  both.parameters.clear();
  both.buffers.clear();
  for (const auto& [from, prefix] : {std::pair(w, "student.backbone."), std::pair(teacher, "teacher.backbone.")}) {
    for (const auto& [name, t] : from.parameters) both.parameters[prefix + name] = t;
    for (const auto& [name, t] : from.buffers) both.buffers[prefix + name] = t;
  }
  write_renamed(path, both, [](const std::string& name) { return name; });
  const auto text = test::file_error([&] { weights::import_safetensors(path, w.model, Naming::automatic); });
  EXPECT_NE(text.find("several networks; name the one to take, such as --prefix teacher.backbone."), std::string::npos)
      << text;
  expect_equal(weights::import_safetensors(path, w.model, Naming::automatic, "teacher.").weights, teacher);

  write_renamed(path, w, [](const std::string& name) { return "strange.place." + name; });
  const auto strange = test::file_error([&] { weights::import_safetensors(path, w.model, Naming::automatic); });
  EXPECT_NE(strange.find("strange.place.stem.0.weight (nearest: stem.0.weight)"), std::string::npos) << strange;
  expect_equal(weights::import_safetensors(path, w.model, Naming::automatic, "strange.place.").weights, w);
}

TEST_F(WeightsFile, ExportRecordsWhatImportNeeds) {
  for (auto w : {tiny(true, true), tiny(false, false)}) {
    if (w.head.dims.empty()) {
      w.model = {.preset = "",
                 .width_rule = "torchvision",
                 .depth = 4,
                 .w0 = 16,
                 .wa = 16,
                 .wm = 2,
                 .group_width = 8,
                 .init_from = ""};
    }
    w.about = {{"mean", "[0.5, 0.5, 0.5]"}, {"std", "[0.25, 0.25, 0.25]"}, {"classes", "[\"a\"]"}, {"source", "run"}};
    weights::export_safetensors(at("w.safetensors"), w, Naming::torchvision);
    const weights::SafetensorsFile file(at("w.safetensors"));
    EXPECT_EQ(file.metadata().at("group_widths").substr(0, 2), "[8");
    EXPECT_EQ(file.metadata().at("wm"), "2");
    const auto back = weights::import_safetensors(at("w.safetensors"), std::nullopt, Naming::automatic).weights;
    expect_equal(back, w);
    EXPECT_EQ(back.about, w.about);
    weights::write_weights(at("w.h5"), back);
    EXPECT_EQ(weights::read_weights(at("w.h5")).about, w.about);
  }
  const auto w = tiny(false, false);
  write_renamed(at("w.safetensors"), w, [](const std::string& name) { return name; });
  try {
    weights::import_safetensors(at("w.safetensors"), std::nullopt, Naming::automatic);
    FAIL() << "no architecture, and none was missed";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_EQ(e.remedy(), "its shapes are those of --preset tiny");
  }
}

TEST_F(WeightsFile, PythonLinesFollowTheArchitecture) {
  const auto lines = [&](const std::string& preset, const std::string& rule) {
    Weights w;
    w.model.preset = preset;
    w.model.width_rule = rule;
    return weights::python_lines("x.safetensors", w);
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(lines("400mf", "pycls"), "torchvision.models.regnet_y_400mf()\n"));
  EXPECT_TRUE(has(lines("1.6gf", "pycls"), "torchvision.models.regnet_y_1_6gf()\n"));
  EXPECT_TRUE(has(lines("800mf", "torchvision"), "torchvision.models.regnet_y_800mf()\n"));
  EXPECT_TRUE(has(lines("800mf", "pycls"), "bottleneck_multipliers=[1.0, 1.0, 1.0, 1.0], strides=[2, 2, 2, 2]"));
  EXPECT_TRUE(has(lines("200mf", "pycls"), "from_init_params(depth=13, w_0=24, w_a=36.44, w_m=2.49, group_width=8"));
}

TEST_F(WeightsFile, OtherToolsFilesAreNamedWithTheWayOut) {
  const std::vector<std::array<std::string, 4>> cases = {
      {"x.pth", "PK\x03\x04 archive/data.pkl", "is a checkpoint of PyTorch (zip)", "torch.load(\"%\", map_location"},
      {"x.pt", "PK\x03\x04 x/code/x.py x/constants.pkl x/data.pkl", "is a TorchScript program", "torch.jit.load(\"%\""},
      {"x.pkl", "\x80\x02}q", "is a Python pickle", "safetensors.torch.save_file("},
      {"x.npz", "PK\x03\x04 a.npy", "is an archive of NumPy", "give a safetensors file"},
      {"x.onnx", "\x08\x07\x12\x07pytorch", "is an ONNX model", "BatchNorms"},
      {"x.tgz", "\x1F\x8B\x08", "is an archive", "unpack"},
      {"lfs.safetensors", "version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS", "git lfs pull"},
      {"page.bin", "<!DOCTYPE html>", "is a web page", "download"},
  };
  for (const auto& [name, bytes, what, remedy] : cases) {
    std::ofstream(at(name), std::ios::binary) << bytes;
    for (const bool reading : {false, true}) {
      try {
        reading ? void(weights::read_weights(at(name)))
                : void(weights::import_safetensors(at(name), tiny(false, false).model, Naming::automatic));
        FAIL() << name;
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ExitCode::file);
        EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
        auto wanted = remedy;
        if (const auto mark = wanted.find('%'); mark != std::string::npos) wanted.replace(mark, 1, at(name));
        EXPECT_NE(e.remedy().find(wanted), std::string::npos) << e.remedy();
      }
    }
  }
  const auto w = tiny(false, false);
  write_renamed(at("a b.safetensors"), w, [](const std::string& name) { return name; });
  try {
    weights::read_weights(at("a b.safetensors"));
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.remedy(),
              "import it first: seer import '" + at("a b.safetensors") + "' '" + at("a b.h5") + "' --preset tiny");
  }
  weights::write_weights(at("w.h5"), w);
  const auto own = test::file_error([&] { weights::import_safetensors(at("w.h5"), w.model, Naming::automatic); });
  EXPECT_NE(own.find("a file of seer's own"), std::string::npos) << own;
}

}  // namespace
}  // namespace seer
