#include "common/wire/digest.h"
