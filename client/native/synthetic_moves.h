// The moves that synthetic values make at a training step: which elements of a block move, and by how much.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace refit {

// Moves of adjacent elements, in units in the last place.
inline constexpr size_t kMovesInBlock = 256;
using BlockOfMoves = std::array<int32_t, kMovesInBlock>;

// Moves are drawn with this many bits, so fractions are multiples of 2^-30.
inline constexpr int kFractionBits = 30;

// Adds the moves that `key` gives to a block. An element moves with probability `fraction` * 2^-kFractionBits; -2, -1,
// +1 and +2 are equally likely. The same on every machine.
void AddMoves(uint64_t key, uint32_t fraction, BlockOfMoves& moves);

}  // namespace refit
