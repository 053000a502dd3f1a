// What a reactor asks of gRPC next.
#pragma once

namespace refit {

// To be done once the reactor's lock is released: gRPC may call back from within.
enum class Step { kNothing, kWrite, kFinish };

}  // namespace refit
