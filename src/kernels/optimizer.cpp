// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/optimizer.hpp"

#include <bit>
#include <cmath>
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
  explicit FlatTables(const FlatRanges& of)
      : pieces(static_cast<const Piece*>(of.tables_.data())),
        first(static_cast<const std::int64_t*>(of.tables_.data()) + of.pieces_ * 3),
        count(of.pieces_),
        elems(of.elems_) {}
  const Piece* pieces;
  const std::int64_t* first;
  std::int64_t count, elems;  ///< pieces; elements of all ranges
};
namespace {

/// Bits of the magnitude. They have the same order as the magnitudes, with infinity and then NaN above all.
KOKKOS_FORCEINLINE_FUNCTION std::uint32_t magnitude(float x) {
  return std::bit_cast<std::uint32_t>(x) & 0x7fffffffU;
}

/// The sum of four squares, from the four quarters of an array: four loads and chains of sums at a time.
struct FourSquares {
  const float *a, *b, *c, *d;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(a, b, c, d); }
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::int64_t k) const {
    const Square square;
    return (square(a[k]) + square(b[k])) + (square(c[k]) + square(d[k]));
  }
};

struct PieceSquares {
  const float* x;
  const Piece* piece;
  double* partial;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    constexpr std::int64_t kAlign = 16;
    const float* const part = x + piece[i].begin;
    const std::int64_t count = piece[i].end - piece[i].begin, quarter = count / 4 / kAlign * kAlign;
    const double sum = team.sum(quarter, FourSquares{part, part + quarter, part + 2 * quarter, part + 3 * quarter}) +
                       team.sum(count - 4 * quarter, Each{part + 4 * quarter, Square{}});
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

/// The same with Nesterov's momentum: the step looks ahead along the new momentum.
struct MovedAhead {
  const float *g, *m, *p;
  float scale, decay, rate, keep;
  KOKKOS_FORCEINLINE_FUNCTION void fields(auto& visit) { visit.elements(g, m, p); }
  KOKKOS_FORCEINLINE_FUNCTION launch::Pair operator()(std::int64_t k) const {
    const float slope = scale * g[k] + decay * p[k], step = keep * m[k] + slope;
    return {step, p[k] - rate * (slope + keep * step)};
  }
};

struct Step {
  const Piece* piece;
  const RangeRule* own;
  const double *parameter_squares, *gradient_squares;
  const UpdateRule* rule;
  const float* gradients;
  float *momenta, *parameters;
  double* partial;  ///< of the next squares, or null
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    move(team, piece[i]);
    if (partial != nullptr) PieceSquares{parameters, piece, partial}(team, i);  // from the cache
  }

 private:
  KOKKOS_INLINE_FUNCTION void move(const auto& team, const Piece& part) const {
    const RangeRule mine = own != nullptr ? own[part.range] : RangeRule{};
    const unsigned flag = mine.flags;
    if ((flag & kSkipped) != 0) return;
    UpdateRule r = *rule;
    r.lr *= mine.rate;
    if (mine.weight_decay >= 0) r.weight_decay = mine.weight_decay;
    if ((flag & kNoDecay) != 0) r.weight_decay = 0;
    if ((flag & kNoTrust) != 0) r.lars = false;
    const Coefficients of =
        r.lars ? coefficients(r, parameter_squares[part.range], gradient_squares[part.range]) : coefficients(r, 1, 1);
    float *m = momenta + part.begin, *p = parameters + part.begin;
    const float* g = gradients + part.begin;
    const std::int64_t count = part.end - part.begin;
    if (r.nesterov)
      team.write(count, MovedAhead{g, m, p, of.scale, of.decay, r.lr, r.momentum}, m, p);
    else
      team.write(count, Moved{g, m, p, of.scale, of.decay, r.lr, r.momentum}, m, p);
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
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(std::int64_t place) const { return place >= 0; }
};
struct FirstFound {
  const std::int64_t* places;
  std::int64_t count, piece_elems;
  std::int64_t* place;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t) const {
    const std::int64_t piece = team.first(count, Each{places, Found{}});
    if (team.leads()) *place = piece < 0 ? -1 : piece * piece_elems + places[piece];
  }
};

struct Beyond {
  std::uint32_t most;
  KOKKOS_FORCEINLINE_FUNCTION bool operator()(float x) const { return magnitude(x) > most; }
};

struct FirstBeyond {
  const float* x;
  std::int64_t* found;
  std::int64_t count, piece_elems;
  std::uint32_t most;  ///< magnitude
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t i) const {
    const float* part = x + i * piece_elems;
    const std::int64_t left = count - i * piece_elems;
    const std::int64_t place = team.first(left < piece_elems ? left : piece_elems, Each{part, Beyond{most}});
    if (team.leads()) found[i] = place;
  }
};

}  // namespace

FlatRanges::FlatRanges(device::Space space, std::span<const Range> ranges)
    : ranges_(static_cast<std::int64_t>(ranges.size())) {
  for (const Range& range : ranges) elems_ += range.end - range.begin;
  Queue queue{.space = space};
  if (space == device::Space::planned) return;  // a planned queue reads no tables
  launch::on_space(queue, [&]<class Space>() {
    constexpr std::int64_t kElems = kPieceElems<Space>;
    std::vector<std::int64_t> table, first;
    for (std::int64_t i = 0; const Range& range : ranges) {
      first.push_back(pieces_);
      for (std::int64_t begin = range.begin; begin < range.end; begin += kElems, ++pieces_)
        table.insert(table.end(), {begin, std::min(begin + kElems, range.end), i});
      ++i;
    }
    first.push_back(pieces_);
    table.insert(table.end(), first.begin(), first.end());
    tables_ = device::Buffer(table.size() * sizeof(std::int64_t), space);
    device::copy(queue, table.data(), device::Space::host, tables_.data(), space, tables_.bytes());
    queue.wait();
  });
}

void squared_norms(Queue& queue, const FlatRanges& ranges, const float* x, double* squares) {
  const FlatTables tables(ranges);
  launch::on_space(queue, {4 * tables.elems, 2}, [&]<class Space>() {
    Scratch scratch(queue);
    double* partial = scratch.get<double>(tables.count);
    launch::rows<Space>(queue, "kernels/squared_norms", tables.count, PieceSquares{x, tables.pieces, partial});
    launch::rows<Space>(queue, "kernels/squares_of_ranges", ranges.ranges(),
                        Kept<RangeSquares, double>{{partial, tables.first}, squares});
  });
}

void optimizer_update(Queue& queue, const FlatRanges& ranges, const RangeRule* own, const double* parameter_squares,
                      const double* gradient_squares, const UpdateRule* rule, const float* gradients, float* momenta,
                      float* parameters, double* next_squares) {
  const FlatTables tables(ranges);
  launch::on_space(queue, {20 * tables.elems, next_squares != nullptr ? 2 : 1}, [&]<class Space>() {
    Scratch scratch(queue);
    double* const partial = next_squares != nullptr ? scratch.get<double>(tables.count) : nullptr;
    launch::rows<Space>(
        queue, "kernels/optimizer_update", tables.count,
        Step{tables.pieces, own, parameter_squares, gradient_squares, rule, gradients, momenta, parameters, partial});
    if (next_squares == nullptr) return;
    launch::rows<Space>(queue, "kernels/squares_of_ranges", ranges.ranges(),
                        Kept<RangeSquares, double>{{partial, tables.first}, next_squares});
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
                        UnitRow{matrix.f32(), matrix.f32(), nullptr, matrix.shape.c, wide(tolerance)});
  });
}

}  // namespace seer::kernels
