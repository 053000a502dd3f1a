#include "client/native/synthetic_moves.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "client/native/synthetic_moves.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace refit {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// A hash of 32 bits of (key, place in the block): its upper 30 bits decide whether the element moves, its lower two
// how. It is the finaliser lowbias32, with one half of the key before it and the other between its rounds.
void Add(uint64_t key, uint32_t fraction, int32_t* moves) {
  const hn::CappedTag<uint32_t, kMovesInBlock> u32;
  const hn::RebindToSigned<decltype(u32)> i32;
  const auto low = hn::Set(u32, static_cast<uint32_t>(key));
  const auto high = hn::Set(u32, static_cast<uint32_t>(key >> 32));
  for (size_t i = 0; i < kMovesInBlock; i += hn::Lanes(u32)) {
    auto hash = hn::Add(hn::Iota(u32, static_cast<uint32_t>(i)), low);
    hash = hn::Mul(hn::Xor(hash, hn::ShiftRight<16>(hash)), hn::Set(u32, 0x7feb352d));
    hash = hn::Xor(hash, high);
    hash = hn::Mul(hn::Xor(hash, hn::ShiftRight<15>(hash)), hn::Set(u32, 0x846ca68b));
    hash = hn::Xor(hash, hn::ShiftRight<16>(hash));

    const auto two_bits = hn::BitCast(i32, hn::And(hash, hn::Set(u32, 3)));
    // 0, 1, 2, 3 become -2, -1, +1, +2.
    const auto move = hn::Sub(hn::Add(two_bits, hn::ShiftRight<1>(two_bits)), hn::Set(i32, 2));
    // Both are at most 2^30, so the comparison may be signed, which every processor has.
    const auto drawn = hn::BitCast(i32, hn::ShiftRight<32 - kFractionBits>(hash));
    const auto moves_now = hn::Lt(drawn, hn::Set(i32, static_cast<int32_t>(fraction)));
    hn::StoreU(hn::Add(hn::LoadU(i32, moves + i), hn::IfThenElseZero(moves_now, move)), i32, moves + i);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace refit
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace refit {

HWY_EXPORT(Add);

void AddMoves(uint64_t key, uint32_t fraction, BlockOfMoves& moves) {
  HWY_DYNAMIC_DISPATCH(Add)(key, fraction, moves.data());
}

}  // namespace refit
#endif  // HWY_ONCE
