// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/optimizer.hpp"

#include <limits>

#include "kernel_test.hpp"
#include "mirrored_kernels.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::expect_close;
using test::Values;
using Wide = std::vector<double>;

SEER_ON_ALL_SPACES(Optimizer);

/// One update of a whole flat block, norms included.
void update(test::MirroredQueue& queue, const std::vector<Range>& ranges, const std::vector<RangeRule>& own,
            const UpdateRule& rule, const std::vector<float>& gradients, std::vector<float>& momenta,
            std::vector<float>& parameters) {
  Wide p(ranges.size()), g(ranges.size());
  squared_norms(queue, parameters.data(), ranges, p.data());
  squared_norms(queue, gradients.data(), ranges, g.data());
  optimizer_update(queue, ranges, own, p.data(), g.data(), rule, gradients.data(), momenta.data(), parameters.data());
}

// Gradients multiplied by a loss scale, and the rule told so: the same bits as without, whatever the rule.
TEST_P(Optimizer, GradientFactorUndoesTheLossScale) {
  const std::vector<Range> ranges{{0, 7}, {16, 90}, {96, 133}};
  for (const bool lars : {true, false}) {
    std::vector<float> plain_p = test::hash_fill(140, 2, 1), plain_m(140), scaled_p, scaled_m(140);
    std::fill(plain_p.begin() + 16, plain_p.begin() + 90, 0.0F);  // the zero-norm rule
    scaled_p = plain_p;
    UpdateRule rule{.lr = 0.3F, .weight_decay = 1e-2F, .lars = lars};
    for (std::uint64_t step = 0; step < 3; ++step) {
      auto gradients = test::hash_fill(140, 5 + step, 0.1);
      rule.gradient_factor = 1;
      update(queue, ranges, {}, rule, gradients, plain_m, plain_p);
      for (float& g : gradients) g *= 0x1p40F;
      rule.gradient_factor = 0x1p-40F;
      update(queue, ranges, {}, rule, gradients, scaled_m, scaled_p);
    }
    EXPECT_EQ(scaled_p, plain_p);
    EXPECT_EQ(scaled_m, plain_m);
    EXPECT_NE(plain_p, test::hash_fill(140, 2, 1));
  }
}

// torch.optim.SGD(nesterov=True): d = g + wd p; buf = m buf + d; p -= lr (d + m buf). Each range has its own rate and
// decay.
TEST_P(Optimizer, NesterovIsPyTorchsWithOwnRatesAndDecays) {
  const std::vector<Range> ranges{{0, 7}, {16, 90}, {96, 133}};
  const std::vector<RangeRule> own{{}, {.rate = 0.25F, .weight_decay = 0.5F}, {.rate = 3, .flags = kNoDecay}};
  const double decays[] = {0.01, 0.5, 0}, rates[] = {0.3, 0.075, 0.9};
  std::vector<float> p = test::hash_fill(140, 2, 1), m(140);
  Wide wanted(p.begin(), p.end()), momentum(140);
  for (std::uint64_t step = 0; step < 4; ++step) {
    const auto g = test::hash_fill(140, 5 + step, 0.1);
    update(queue, ranges, own, {.lr = 0.3F, .momentum = 0.8F, .weight_decay = 0.01F, .lars = false, .nesterov = true},
           g, m, p);
    for (std::size_t r = 0; r < ranges.size(); ++r) {
      for (auto i = at(ranges[r].begin); i < at(ranges[r].end); ++i) {
        const double d = static_cast<double>(g[i]) + decays[r] * wanted[i];
        momentum[i] = 0.8 * momentum[i] + d;
        wanted[i] -= rates[r] * (d + 0.8 * momentum[i]);
      }
    }
  }
  for (const auto& range : ranges)
    for (auto i = at(range.begin); i < at(range.end); ++i) EXPECT_NEAR(p[i], wanted[i], 2e-6) << i;
}

TEST_P(Optimizer, SquaredNormsMatchDouble) {
  const std::size_t count = 300001;  // pieces, odd ends, gaps, an empty range
  const std::vector<float> x = test::hash_fill(count, 1, 2);
  const std::vector<Range> ranges{{0, 1}, {1, 1}, {1, 65537}, {65600, 200001}, {200001, 300001}};
  Wide squares(ranges.size(), -1), wanted(ranges.size());
  for (std::size_t r = 0; r < ranges.size(); ++r) {
    for (std::int64_t i = ranges[r].begin; i < ranges[r].end; ++i) {
      wanted[r] += static_cast<double>(x[at(i)]) * static_cast<double>(x[at(i)]);
    }
  }
  squared_norms(queue, x.data(), ranges, squares.data());
  for (std::size_t r = 0; r < ranges.size(); ++r) EXPECT_NEAR(squares[r], wanted[r], 1e-12 * wanted[r]) << r;
}

// A run that was resumed takes the norms from the parameters; one that goes on has them from its last step.
TEST_P(Optimizer, NextSquaresAreThoseOfTheNewParameters) {
  const std::vector<Range> ranges{{0, 1}, {1, 1}, {1, 65537}, {65600, 200001}, {200003, 300001}};
  const std::vector<RangeRule> own{{}, {}, {}, {.flags = kSkipped}, {}};
  auto parameters = test::hash_fill(300001, 1, 2), momenta = test::hash_fill(300001, 2, 1);
  const auto gradients = test::hash_fill(300001, 3, 1);
  Wide squares(ranges.size(), 0.5), wanted(ranges.size());
  optimizer_update(queue, ranges, own, squares.data(), squares.data(), {.lr = 0.3F}, gradients.data(), momenta.data(),
                   parameters.data(), squares.data());
  squared_norms(queue, parameters.data(), ranges, wanted.data());
  EXPECT_EQ(squares, wanted);
}

TEST_P(Optimizer, MatchesGoldenLars) {
  // All tensors in one block with odd gaps, as a step does it; zero_parameter exercises the zero-norm rule.
  const test::GoldenFile file("lars.h5");
  const std::vector<std::string> names = file.names("/");
  ASSERT_EQ(names.size(), 3U);
  std::vector<Range> ranges;
  std::vector<float> parameters;
  for (const std::string& name : names) {
    const auto start = file.read(name + "/start").f32();
    parameters.resize(parameters.size() + 3, 77.0F);  // belongs to nobody
    ranges.push_back(
        {static_cast<std::int64_t>(parameters.size()), static_cast<std::int64_t>(parameters.size() + start.size())});
    parameters.insert(parameters.end(), start.begin(), start.end());
  }
  std::vector<float> momenta(parameters.size()), gradients(parameters.size(), 5.0F);
  for (int step = 0; step < 4; ++step) {
    const std::string at_step = "/" + std::to_string(step) + "/";
    UpdateRule rule;
    rule.weight_decay = 1e-5F;
    rule.lr = static_cast<float>(file.read(names[0] + at_step + "lr").values[0]);
    for (std::size_t t = 0; t < names.size(); ++t) {
      const auto g = file.read(names[t] + at_step + "grad").f32();
      std::copy(g.begin(), g.end(), gradients.begin() + ranges[t].begin);
    }
    update(queue, ranges, {}, rule, gradients, momenta, parameters);
    for (std::size_t t = 0; t < names.size(); ++t) {
      const auto part = [&](const std::vector<float>& block) {
        return std::vector<float>(block.begin() + ranges[t].begin, block.begin() + ranges[t].end);
      };
      expect_close(part(parameters), file.read(names[t] + at_step + "parameter").values, 1e-6, names[t].c_str());
      expect_close(part(momenta), file.read(names[t] + at_step + "momentum").values, 1e-6, names[t].c_str());
    }
  }
  EXPECT_EQ(parameters[0], 77.0F);
  EXPECT_EQ(momenta[0], 0.0F);
}

TEST_P(Optimizer, TestVector) {  // method.md 5.1
  std::vector<float> p{1, 2, 2}, m(3);
  UpdateRule rule;
  rule.lr = 9.6F;
  rule.weight_decay = 1e-5F;
  update(queue, {{0, 3}}, {}, rule, {0.3F, 0, 0.4F}, m, p);
  expect_close(m, Wide{0.00179995197, 1.19993e-7, 0.00239997595}, 1e-6, "momentum is alpha (g + decay p)");
  expect_close(p, Wide{0.98272046, 1.99999885, 1.97696023}, 1e-6, "parameter");
}

TEST_P(Optimizer, ZeroNormsTakeTheRawGradient) {
  UpdateRule rule;
  rule.lr = 0.5F;
  rule.weight_decay = 0.25F;
  std::vector<float> p{0, 0, 1, 2}, m(4);
  update(queue, {{0, 2}, {2, 4}}, {}, rule, {3, -4, 0, 0}, m, p);
  EXPECT_EQ(m, (std::vector<float>{3, -4, 0, 0})) << "neither trust ratio nor decay";
  EXPECT_EQ(p, (std::vector<float>{-1.5F, 2, 1, 2}));
}

TEST_P(Optimizer, SkippedRangesStayAsTheyAre) {
  UpdateRule rule;
  rule.lr = 1;
  std::vector<float> p{1, 2, 3, 4}, m{5, 6, 7, 8};
  update(queue, {{0, 2}, {2, 4}}, {{.flags = kSkipped}, {}}, rule, {1, 1, 1, 1}, m, p);
  EXPECT_EQ(p[0], 1.0F);
  EXPECT_EQ(p[1], 2.0F);
  EXPECT_EQ(m[0], 5.0F);
  EXPECT_NE(p[2], 3.0F);
  EXPECT_NE(m[3], 8.0F);
}

// A range that is excepted moves as the whole block does under the rule without it, the others as under the rule.
TEST_P(Optimizer, RangesAreExceptedFromDecayAndTrust) {
  const std::vector<Range> ranges{{0, 40}, {48, 101}};
  const UpdateRule rule{.lr = 0.3F, .weight_decay = 0.1F};
  const auto gradients = test::hash_fill(101, 5, 0.1);
  const auto moved = [&](const UpdateRule& by, const std::vector<RangeRule>& own) {
    std::vector<float> p = test::hash_fill(101, 2, 1), m(101);
    update(queue, ranges, own, by, gradients, m, p);
    return p;
  };
  const auto whole = moved(rule, {});
  for (const unsigned flag : {2U, 4U, 6U}) {  // kNoDecay, kNoTrust, both
    UpdateRule other = rule;
    if ((flag & kNoDecay) != 0) other.weight_decay = 0;
    if ((flag & kNoTrust) != 0) other.lars = false;
    const auto found = moved(rule, {{}, {.flags = flag}}), excepted = moved(other, {});
    EXPECT_NE(found, whole);
    for (std::size_t i = 0; i < 101; ++i) EXPECT_EQ(found[i], i < 48 ? whole[i] : excepted[i]) << flag << ", " << i;
  }
}

TEST_P(Optimizer, PlainSgdDecaysAndRemembers) {
  UpdateRule rule;
  rule.lars = false;
  rule.lr = 0.1F;
  rule.weight_decay = 0.5F;
  std::vector<float> p{2}, m{0};
  const std::vector<Range> ranges{{0, 1}};
  const float g = 1;
  update(queue, ranges, {}, rule, {g}, m, p);
  EXPECT_FLOAT_EQ(m[0], 2.0F);
  EXPECT_FLOAT_EQ(p[0], 1.8F);
  update(queue, ranges, {}, rule, {g}, m, p);
  EXPECT_FLOAT_EQ(m[0], 0.9F * 2.0F + 1.9F);
  EXPECT_FLOAT_EQ(p[0], 1.8F - 0.1F * 3.7F);
}

TEST_P(Optimizer, ShardsMatchTheWhole) {
  // Two ranks hold parts of one tensor and share its norms.
  const std::size_t count = 1001, cut = 333;
  const std::vector<float> g = test::hash_fill(count, 3, 1), start = test::hash_fill(count, 4, 1);
  UpdateRule rule;
  rule.lr = 2;
  std::vector<float> whole = start, whole_m(count), split = start, split_m(count);
  update(queue, {{0, 1001}}, {}, rule, g, whole_m, whole);
  const std::vector<Range> parts[] = {{{0, 333}}, {{0, 668}}};
  double p2 = 0, g2 = 0;
  for (int rank = 0; rank < 2; ++rank) {
    double p_part, g_part;
    squared_norms(queue, start.data() + (rank == 0 ? 0 : cut), parts[rank], &p_part);
    squared_norms(queue, g.data() + (rank == 0 ? 0 : cut), parts[rank], &g_part);
    p2 += p_part;
    g2 += g_part;
  }
  for (int rank = 0; rank < 2; ++rank) {
    const std::size_t offset = rank == 0 ? 0 : cut;
    optimizer_update(queue, parts[rank], {}, &p2, &g2, rule, g.data() + offset, split_m.data() + offset,
                     split.data() + offset);
  }
  expect_close(split, whole, 1e-7, "parameters");
  expect_close(split_m, whole_m, 1e-7, "momenta");
}

TEST_P(Optimizer, NormalizeRows) {
  for (const test::Shape s : {test::Shape{1, 1, 1, 3}, test::Shape{7, 1, 1, 13}, test::Shape{30, 1, 1, 256}}) {
    Values x(s, 5, 4);
    std::fill_n(x.data.begin(), s.n > 1 ? s.c : 0, 0.0F);  // a row of zeros stays one
    const Values before = x;
    normalize_rows(queue, x.tensor());
    for (std::int64_t r = 0; r < s.n; ++r) {
      double square = 0;
      for (std::int64_t k = 0; k < s.c; ++k) square += std::pow(static_cast<double>(before.data[at(r * s.c + k)]), 2);
      const double norm = std::max(std::sqrt(square), 1e-12);
      for (std::int64_t k = 0; k < s.c; ++k) {
        EXPECT_NEAR(x.data[at(r * s.c + k)], static_cast<double>(before.data[at(r * s.c + k)]) / norm, 1e-7);
      }
    }
  }
}

// Within the tolerance a row keeps its bits; beyond it, it is scaled as without one.
TEST_P(Optimizer, NormalizeRowsLeavesUnitRows) {
  const test::Shape s{40, 1, 1, 37};
  Values x(s, 5, 4);
  normalize_rows(queue, x.tensor());
  const Values unit = x;
  normalize_rows(queue, x.tensor(), 1e-5F);
  EXPECT_EQ(x.data, unit.data);
  for (std::int64_t k = 0; k < s.c; ++k) x.data[at(3 * s.c + k)] *= 1.001F;
  Values wanted = x;
  normalize_rows(queue, wanted.tensor());
  normalize_rows(queue, x.tensor(), 1e-5F);
  for (std::int64_t i = 0; i < 40 * s.c; ++i) {
    EXPECT_EQ(x.data[at(i)], i / s.c == 3 ? wanted.data[at(i)] : unit.data[at(i)]) << i;
  }
}

TEST_P(Optimizer, FirstNonFinite) {
  std::vector<float> x = test::hash_fill(200003, 6, std::numeric_limits<float>::max() / 2);
  const auto count = static_cast<std::int64_t>(x.size());
  EXPECT_EQ(first_non_finite(queue, x.data(), count), -1);
  EXPECT_EQ(first_non_finite(queue, x.data(), 0), -1);
  const float bad[] = {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  std::int64_t last = count;
  for (const std::int64_t place :
       {count - 1, std::int64_t{131072}, std::int64_t{65535}, std::int64_t{17}, std::int64_t{0}}) {
    x[at(place)] = bad[place % 3];
    EXPECT_EQ(first_non_finite(queue, x.data(), count), place);
    EXPECT_EQ(first_non_finite(queue, x.data(), place), -1);
    last = place;
  }
  EXPECT_EQ(last, 0);
}

TEST_P(Optimizer, FirstBeyondALimit) {
  std::vector<float> x = test::hash_fill(70001, 6, 2.0F);
  const auto count = static_cast<std::int64_t>(x.size());
  EXPECT_EQ(first_beyond(queue, x.data(), count, 3.0F), -1);
  x[65536] = -3.0F;
  EXPECT_EQ(first_beyond(queue, x.data(), count, 3.0F), -1);
  x[65536] = std::nextafter(-3.0F, -4.0F);
  EXPECT_EQ(first_beyond(queue, x.data(), count, 3.0F), 65536);
  x[70000] = std::nanf("");
  EXPECT_EQ(first_beyond(queue, x.data() + 65537, count - 65537, 3.0F), 70000 - 65537);
}

}  // namespace
}  // namespace seer::kernels
