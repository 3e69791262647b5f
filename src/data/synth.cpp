// SPDX-License-Identifier: Apache-2.0
// Draws synthetic images and writes them into shards. Signed distances give the shapes, a periodic function the
// texture. Four samples per pixel smooth the edges.
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <numbers>

#include "generation.hpp"
#include "seer/base/random.hpp"

namespace seer::data {
namespace {

constexpr std::size_t kTextures = 6, kShapes = 6, kLayouts = 4;
static_assert(kTextures * kShapes * kLayouts == kSynthClasses);
constexpr std::array<const char*, kTextures> kTextureNames = {"stripes", "dots", "checker", "rings", "zigzag", "blobs"};
constexpr std::array<const char*, kShapes> kShapeNames = {"disc", "square", "triangle", "star", "cross", "annulus"};
constexpr std::array<const char*, kLayouts> kLayoutNames = {"single", "pair", "row", "grid"};
constexpr double kPi = std::numbers::pi;

struct Recipe {
  std::size_t texture, shape, layout;
};

// Consecutive classes differ in texture, shape and layout. Each combination occurs once in kSynthClasses.
Recipe recipe_of(std::int64_t class_index) {
  const auto c = static_cast<std::size_t>(class_index);
  return {c % kTextures, (c / kTextures + c) % kShapes, (c / (kTextures * kShapes) + c) % kLayouts};
}

struct Point {
  double x = 0, y = 0;
};
struct Turn {
  explicit Turn(double angle) : c(std::cos(angle)), s(std::sin(angle)) {}
  double c, s;
};
Point turned(Point p, const Turn& t) {
  return {t.c * p.x - t.s * p.y, t.s * p.x + t.c * p.y};
}
double length(Point p) {
  return std::sqrt(p.x * p.x + p.y * p.y);
}
double box(Point p, double half_width, double half_height) {
  return std::max(std::abs(p.x) - half_width, std::abs(p.y) - half_height);
}

// Signed distance to a shape, negative inside. All shapes have about the same area.
double distance(std::size_t shape, Point p) {
  if (shape == 0) return length(p) - 0.95;
  if (shape == 1) return box(p, 0.84, 0.84);
  if (shape == 2) {
    const double y = p.y - 0.15;
    return std::max(y - 0.65, std::sqrt(3.0) / 2 * std::abs(p.x) - 0.5 * y - 0.62);
  }
  if (shape == 3) {
    // Five-pointed star: the radius of its boundary as a function of the angle from the nearest point.
    constexpr double kSector = 2 * kPi / 5;
    const double angle = std::abs(std::remainder(std::atan2(p.x, p.y), kSector)) / (kSector / 2);
    const double outer = 1.1, inner = 0.5;
    return length(p) - outer * inner / (inner + (outer - inner) * angle * (1.6 - 0.6 * angle));
  }
  if (shape == 4) return std::min(box(p, 1.0, 0.36), box(p, 0.36, 1.0));
  return std::abs(length(p) - 0.74) - 0.3;
}

// A number in [0, 1) determined by a lattice point and the image (one step of SplitMix64).
double lattice(std::int64_t x, std::int64_t y, std::uint64_t key) {
  std::uint64_t z = key + 0x9E3779B97F4A7C15ULL * static_cast<std::uint64_t>(x) +
                    0xC2B2AE3D27D4EB4FULL * static_cast<std::uint64_t>(y);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

double noise(Point p, std::uint64_t key) {
  const double fx = std::floor(p.x), fy = std::floor(p.y);
  const auto x = static_cast<std::int64_t>(fx), y = static_cast<std::int64_t>(fy);
  auto ease = [](double t) { return t * t * (3 - 2 * t); };
  const double u = ease(p.x - fx), v = ease(p.y - fy);
  const double top = std::lerp(lattice(x, y, key), lattice(x + 1, y, key), u);
  const double bottom = std::lerp(lattice(x, y + 1, key), lattice(x + 1, y + 1, key), u);
  return std::lerp(top, bottom, v);
}

// Mix of the two colours, 0 to 1, at a point given in periods. `from_centre`: for textures relative to the object.
double texture(std::size_t kind, Point p, Point from_centre, std::uint64_t key) {
  // A soft edge, for v from -1/6 to 1/6: no finer detail than a few pixels can show.
  auto edge = [](double v) { return std::clamp(0.5 + 3 * v, 0.0, 1.0); };
  if (kind == 0) return edge(std::sin(2 * kPi * p.x));
  if (kind == 1) return edge(2 * (0.3 - length({p.x - std::floor(p.x) - 0.5, p.y - std::floor(p.y) - 0.5})));
  if (kind == 2) return edge(1.5 * std::sin(kPi * p.x) * std::sin(kPi * p.y));
  if (kind == 3) return edge(std::sin(2 * kPi * length(from_centre)));
  if (kind == 4) return edge(std::sin(2 * kPi * (p.x + std::abs(std::remainder(0.5 * p.y, 1.0)))));
  return edge(4 * (noise({1.6 * p.x, 1.6 * p.y}, key) - 0.5));
}

using Colour = std::array<double, 3>;
double brightness(const Colour& c) {
  return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2];
}
// Any hue and saturation at a given brightness. If it varied, light and dark parts would identify images.
Colour draw_colour(Random& random, double of_brightness) {
  Colour c = {random.uniform(), random.uniform(), random.uniform()};
  const double shift = of_brightness + random.uniform(-0.06, 0.06) - brightness(c);
  for (double& channel : c) channel = std::clamp(channel + shift, 0.0, 1.0);
  return c;
}
Colour mix(const Colour& a, const Colour& b, double t) {
  return {std::lerp(a[0], b[0], t), std::lerp(a[1], b[1], t), std::lerp(a[2], b[2], t)};
}

// Orientation, grain and the ground's pattern vary little. They are the same in all crops of an image and no
// augmentation changes them: when they varied freely, training learned only to identify images by them.
constexpr double kGrain = 0.01, kGroundScale = 3, kLargestTurn = 0.25;
Turn small_turn(Random& random) {
  return Turn(random.uniform(-kLargestTurn, kLargestTurn));
}

struct Object {
  Point centre;
  double radius;
  Turn turn;
};

// Positions of the objects, in units of the image's side.
std::vector<Object> place(std::size_t layout, Random& random) {
  static constexpr std::array<std::array<double, 2>, kLayouts> kRadius = {
      {{0.33, 0.45}, {0.21, 0.28}, {0.14, 0.19}, {0.18, 0.24}}};
  // In units of the gap between two objects.
  static const std::array<std::vector<Point>, kLayouts> kPlaces = {
      {{{0, 0}},
       {{-0.5, 0}, {0.5, 0}},
       {{-1, 0}, {0, 0}, {1, 0}},
       {{-0.5, -0.5}, {0.5, -0.5}, {-0.5, 0.5}, {0.5, 0.5}}}};
  const double radius = random.uniform(kRadius[layout][0], kRadius[layout][1]);
  const Turn turn(small_turn(random));
  const double gap = 2.15 * radius;
  // Put the whole group near the middle; parts may lie outside the image.
  const Point middle = {0.5 + random.uniform(-0.17, 0.17), 0.5 + random.uniform(-0.17, 0.17)};
  std::vector<Object> objects;
  for (const Point& p : kPlaces[layout]) {
    const Point q = turned({gap * p.x, gap * p.y}, turn);
    const double own = radius * random.uniform(0.92, 1.08);
    objects.push_back({{middle.x + q.x, middle.y + q.y}, own, small_turn(random)});
  }
  return objects;
}

constexpr int kQuality = 90;
constexpr std::int64_t kMaxShard_images = 8192, kMaxShard_pixels = std::int64_t{1} << 28;

}  // namespace

std::string synth_class_name(std::int64_t index) {
  ensure(index >= 0 && index < kSynthClasses, "class out of range");
  const Recipe r = recipe_of(index);
  return fmt::format("{}-{}-{}", kTextureNames[r.texture], kShapeNames[r.shape], kLayoutNames[r.layout]);
}

Image synth_image(std::uint64_t seed, std::uint64_t index, std::int64_t class_index, std::int64_t size) {
  const Recipe recipe = recipe_of(class_index);
  Random random(seed, Purpose::synthetic, index);
  const auto objects = place(recipe.layout, random);
  Colour first = draw_colour(random, 0.78), second = draw_colour(random, 0.22);
  if (random.uniform() < 0.5) std::swap(first, second);
  const Colour ground_a = draw_colour(random, 0.5), ground_b = mix(ground_a, draw_colour(random, 0.5), 0.3);
  const double period = random.uniform(0.17, 0.21);
  const Turn texture_turn = small_turn(random);
  const Point texture_shift = {random.uniform(0, 8), random.uniform(0, 8)};
  const Turn ground_turn(random.uniform(0, 2 * kPi));
  const Turn light_turn(random.uniform(0, 2 * kPi));
  const double light_slope = random.uniform(0, 0.12);
  const double exposure = random.uniform(0.65, 1.15);
  const std::uint64_t key = (std::uint64_t{random.bits()} << 32) | random.bits();

  const double pixel = 1.0 / static_cast<double>(size);
  auto ground_at = [&](Point p) {
    const Point g = turned({p.x - 0.5, p.y - 0.5}, ground_turn);
    const double wave =
        0.5 + 0.5 * g.x + 0.9 * (noise({kGroundScale * g.x + 64, kGroundScale * g.y + 64}, key + 1) - 0.5);
    return mix(ground_a, ground_b, std::clamp(wave, 0.0, 1.0));
  };
  auto near = [&](const Object& o, Point p) {
    return length({p.x - o.centre.x, p.y - o.centre.y}) < 1.2 * o.radius + 2 * pixel;
  };
  auto colour_at = [&](Point p, Colour c) {
    for (const auto& o : objects) {
      const Point from = {p.x - o.centre.x, p.y - o.centre.y};
      if (!near(o, p)) continue;
      const Point own = turned(from, o.turn);
      const double d = distance(recipe.shape, {own.x / o.radius, own.y / o.radius}) * o.radius;
      const double cover = std::clamp(0.5 - d / pixel, 0.0, 1.0);
      if (cover <= 0) continue;
      const Point t = turned({p.x / period, p.y / period}, texture_turn);
      const double which = texture(recipe.texture, {t.x + texture_shift.x, t.y + texture_shift.y},
                                   {from.x / period, from.y / period}, key);
      c = mix(c, mix(first, second, which), cover);
    }
    return c;
  };

  Image image;
  image.width = image.height = size;
  image.rgb.resize(static_cast<std::size_t>(3 * size * size));
  std::uint8_t* out = image.rgb.data();
  for (std::int64_t y = 0; y < size; ++y) {
    for (std::int64_t x = 0; x < size; ++x) {
      const Point middle = {(static_cast<double>(x) + 0.5) * pixel, (static_cast<double>(y) + 0.5) * pixel};
      const Colour ground = ground_at(middle);  // smooth: one sample does
      Colour sum = ground;
      if (std::any_of(objects.begin(), objects.end(), [&](const Object& o) { return near(o, middle); })) {
        sum = {};
        for (int sub = 0; sub < 4; ++sub) {
          const Point p = {middle.x + pixel * (0.5 * (sub & 1) - 0.25), middle.y + pixel * (0.5 * (sub >> 1) - 0.25)};
          const Colour c = colour_at(p, ground);
          for (std::size_t k = 0; k < 3; ++k) sum[k] += c[k] / 4;
        }
      }
      const Point from_middle = {static_cast<double>(x) * pixel - 0.5, static_cast<double>(y) * pixel - 0.5};
      const double light = exposure * (1 + light_slope * turned(from_middle, light_turn).x);
      for (std::size_t k = 0; k < 3; ++k) {
        const double grains = kGrain * 2 * (lattice(x, y, key + 2 + k) - 0.5) * std::sqrt(3.0);
        *out++ = static_cast<std::uint8_t>(std::lround(255 * std::clamp(sum[k] * light + grains, 0.0, 1.0)));
      }
    }
  }
  return image;
}

SynthResult synth(const SynthOptions& o, const comm::Communicator& comm) {
  Generation g;
  g.what = "synth";
  g.folder = o.folder;
  g.name = o.name;
  g.existing = o.existing;
  g.images = o.images;
  g.per_shard = std::clamp(kMaxShard_pixels / (o.size * o.size), std::int64_t{1}, kMaxShard_images);
  for (std::int64_t c = 0; c < o.classes; ++c) g.classes.push_back(synth_class_name(c));
  std::ranges::sort(g.classes);  // as in pack
  g.identity = [&](std::int64_t begin, std::int64_t last) {
    return fmt::format("synth 1: {} {} {} {} {}", o.seed, o.classes, o.size, begin, last);
  };
  g.make = [&](std::int64_t i) {
    const auto image = synth_image(o.seed, static_cast<std::uint64_t>(i), i % o.classes, o.size);
    const auto label = std::ranges::lower_bound(g.classes, synth_class_name(i % o.classes)) - g.classes.begin();
    const auto side = static_cast<std::uint32_t>(o.size);
    return GeneratedImage{encode_jpeg(image, kQuality), side, side, static_cast<std::int32_t>(label), ""};
  };
  return generate(g, comm);
}

}  // namespace seer::data
