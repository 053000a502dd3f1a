#include "common/net/byte_buffer.h"
