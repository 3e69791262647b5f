// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/optimizer.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include "row_formulas.hpp"
#include "seer/device/copy.hpp"

namespace seer::kernels {
namespace {

using launch::Scratch;

/// A part of one range of a flat block: the unit of work, so that tensors of ten and of ten million elements are
/// distributed evenly.
struct Piece {
  std::int64_t begin, end, range;
};
/// Smaller on a device, which runs many teams of many threads.
template <class Space>
constexpr std::int64_t kPieceElems = std::int64_t{1} << (launch::kOnDevice<Space> ? 14 : 16);

/// The pieces of all ranges.
template <class Space>
std::vector<Piece> cut(std::span<const Range> ranges) {
  constexpr std::int64_t kElems = kPieceElems<Space>;
  std::vector<Piece> pieces;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    for (std::int64_t begin = ranges[i].begin; begin < ranges[i].end; begin += kElems) {
      pieces.push_back({begin, std::min(begin + kElems, ranges[i].end), static_cast<std::int64_t>(i)});
    }
  }
  return pieces;
}

std::int64_t elems(std::span<const Range> ranges) {
  std::int64_t sum = 0;
  for (const auto& range : ranges) sum += range.end - range.begin;
  return sum;
}

/// g' = scale * g + decay * p for the elements of one range.
struct Coefficients {
  float scale = 1, decay = 0;
};

KOKKOS_INLINE_FUNCTION Coefficients coefficients(const UpdateRule& rule, double parameter_square,
                                                 double gradient_square) {
  const double factor = static_cast<double>(rule.gradient_factor);
  if (!rule.lars) return {rule.gradient_factor, rule.weight_decay};
  if (parameter_square == 0 || gradient_square == 0) return {rule.gradient_factor, 0};
  const double parameter = std::sqrt(parameter_square), gradient = std::sqrt(gradient_square) * factor;
  const double decay = static_cast<double>(rule.weight_decay);
  const double alpha =
      static_cast<double>(rule.trust) * parameter / (gradient + decay * parameter + static_cast<double>(rule.epsilon));
  return {static_cast<float>(alpha * factor), static_cast<float>(alpha * decay)};
}

}  // namespace
/// The contents of FlatRanges: the pieces of all ranges in order; the first piece of each range, and their number.
struct FlatTables {
  const Piece* pieces;
  const std::int64_t* first;
  explicit FlatTables(const FlatRanges& of)
      : pieces(static_cast<const Piece*>(of.tables_.data())),
        first(static_cast<const std::int64_t*>(of.tables_.data()) + of.pieces_ * 3) {}
  static std::int64_t count(const FlatRanges& of) { return of.pieces_; }
  static std::int64_t elems(const FlatRanges& of) { return of.elems_; }
};
namespace {

/// Bits of the magnitude. They have the same order as the magnitudes, with infinity and then NaN above all.
KOKKOS_FORCEINLINE_FUNCTION std::uint32_t magnitude(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x7fffffffU;
}

struct PieceSquares {
  const float* x;
  const Piece* piece;
  double* partial;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    const float* part = x + piece[i].begin;
    const double sum = team.sum(piece[i].end - piece[i].begin, Square{part});
    if (team.leads()) partial[i] = sum;
  }
};

/// New momentum and parameter.
struct Moved {
  const float *g, *m, *p;
  float scale, decay, rate, keep;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(g, m, p); }
  KOKKOS_FORCEINLINE_FUNCTION launch::Pair operator()(std::int64_t k) const {
    const float step = keep * m[k] + (scale * g[k] + decay * p[k]);
    return {step, p[k] - rate * step};
  }
};

struct Step {
  const Piece* piece;
  const std::uint8_t* flags;
  const double *parameter_squares, *gradient_squares;
  const UpdateRule* rule;
  const float* gradients;
  float *momenta, *parameters;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    const Piece part = piece[i];
    const unsigned flag = flags != nullptr ? flags[part.range] : 0U;
    if ((flag & kSkipped) != 0) return;
    UpdateRule r = *rule;
    if ((flag & kNoDecay) != 0) r.weight_decay = 0;
    if ((flag & kNoTrust) != 0) r.lars = false;
    const Coefficients of =
        r.lars ? coefficients(r, parameter_squares[part.range], gradient_squares[part.range]) : coefficients(r, 1, 1);
    float *m = momenta + part.begin, *p = parameters + part.begin;
    team.write(part.end - part.begin, Moved{gradients + part.begin, m, p, of.scale, of.decay, r.lr, r.momentum}, m, p);
  }
};

/// The sum of squares of a range, from those of its pieces.
struct RangeSquares {
  const double* partial;
  const std::int64_t* first;
  KOKKOS_INLINE_FUNCTION double operator()(const auto& team, std::int64_t range) const {
    return team.sum_in_order(first[range + 1] - first[range], Value<double>{partial + first[range]});
  }
};

/// FirstFound: the first piece with a match, and from it the index of the match.
struct Found {
  const std::int64_t* places;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(places); }
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(std::int64_t k) const { return places[k] >= 0; }
};
struct FirstFound {
  const std::int64_t* places;
  std::int64_t count, piece_elems;
  std::int64_t* place;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    const std::int64_t piece = team.first(count, Found{places});
    if (team.leads()) *place = piece < 0 ? -1 : piece * piece_elems + places[piece];
  }
};

struct UnitRow {
  float* data;
  std::int64_t c;
  double tolerance;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t row) const {
    float* a = data + row * c;
    const double norm = std::sqrt(team.sum(c, Square{a}));
    if (std::abs(norm - 1) < tolerance) return;
    const double factor = 1.0 / (norm > 1e-12 ? norm : 1e-12);  // method.md 2, prototype normalisation
    team.write(c, Stretched{a, factor}, a);
  }
};

struct Beyond {
  const float* x;
  std::uint32_t most;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(x); }
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(std::int64_t k) const { return magnitude(x[k]) > most; }
};

struct FirstBeyond {
  const float* x;
  std::int64_t* found;
  std::int64_t count, piece_elems;
  std::uint32_t most;  ///< magnitude
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    const float* part = x + i * piece_elems;
    const std::int64_t left = count - i * piece_elems;
    const std::int64_t place = team.first(left < piece_elems ? left : piece_elems, Beyond{part, most});
    if (team.leads()) found[i] = place;
  }
};

}  // namespace

FlatRanges::FlatRanges(device::Space space, std::span<const Range> ranges)
    : ranges_(static_cast<std::int64_t>(ranges.size())), elems_(elems(ranges)) {
  Queue queue{.space = space};
  if (space == device::Space::planned) {
    return;  // a planned queue reads no tables
  }
  launch::on_space(queue, [&]<class Space>() {
    const std::vector<Piece> pieces = cut<Space>(ranges);
    pieces_ = static_cast<std::int64_t>(pieces.size());
    std::vector<std::int64_t> table;
    for (const Piece& piece : pieces) table.insert(table.end(), {piece.begin, piece.end, piece.range});
    std::size_t next = 0;
    for (std::int64_t range = 0; range <= ranges_; ++range) {
      while (next < pieces.size() && pieces[next].range < range) ++next;
      table.push_back(static_cast<std::int64_t>(next));
    }
    tables_ = device::Buffer(table.size() * sizeof(std::int64_t), space);
    device::copy(queue, table.data(), device::Space::host, tables_.data(), space, tables_.bytes());
    queue.wait();
  });
}

void squared_norms(Queue& queue, const FlatRanges& ranges, const float* x, double* squares) {
  launch::on_space(queue, {4 * FlatTables::elems(ranges), 2}, [&]<class Space>() {
    Scratch scratch(queue);
    const FlatTables tables(ranges);
    const std::int64_t count = FlatTables::count(ranges);
    double* partial = scratch.get<double>(count);
    launch::rows<Space>(queue, "kernels/squared_norms", count, PieceSquares{x, tables.pieces, partial});
    launch::rows<Space>(queue, "kernels/squares_of_ranges", ranges.ranges(),
                        Kept<RangeSquares, double>{{partial, tables.first}, squares});
  });
}

void optimizer_update(Queue& queue, const FlatRanges& ranges, const std::uint8_t* flags,
                      const double* parameter_squares, const double* gradient_squares, const UpdateRule* rule,
                      const float* gradients, float* momenta, float* parameters) {
  launch::on_space(queue, {20 * FlatTables::elems(ranges)}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/optimizer_update", FlatTables::count(ranges),
                        Step{FlatTables(ranges).pieces, flags, parameter_squares, gradient_squares, rule, gradients,
                             momenta, parameters});
  });
}

void first_beyond(Queue& queue, const float* x, std::int64_t count, float limit, std::int64_t* place) {
  launch::on_space(queue, {4 * count, 2}, [&]<class Space>() {
    Scratch scratch(queue);
    constexpr std::int64_t kElems = kPieceElems<Space>;
    const std::int64_t pieces = (count + kElems - 1) / kElems;
    std::int64_t* places = scratch.get<std::int64_t>(pieces);
    launch::rows<Space>(queue, "kernels/first_beyond", pieces, FirstBeyond{x, places, count, kElems, magnitude(limit)});
    launch::rows<Space>(queue, "kernels/first_found", 1, FirstFound{places, pieces, kElems, place});
  });
}

void normalize_rows(Queue& queue, const Tensor& matrix, float tolerance) {
  launch::on_floats(queue, {matrix}, {3 * matrix.bytes()}, [&]<class Space>() {
    launch::rows<Space>(queue, "kernels/normalize_rows", matrix.rows(),
                        UnitRow{matrix.f32(), matrix.shape.c, static_cast<double>(tolerance)});
  });
}

}  // namespace seer::kernels
