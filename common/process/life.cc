#include "common/process/life.h"

#include <random>

namespace refit {

uint64_t NewLife() {
  std::random_device random;
  uint64_t life = 0;
  while (life == 0) life = (uint64_t{random()} << 32) | random();
  return life;
}

}  // namespace refit
