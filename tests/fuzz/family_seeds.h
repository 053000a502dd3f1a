// Families, and tensors for them, with which the fuzz target `families` begins.
#pragma once

#include <map>
#include <string>

namespace refit {

// By name. Lines that begin with "#: " are tensors: a name, then dimensions.
inline std::map<std::string, std::string> FamilySeeds() {
  return {
      {"each_expert", R"(name = "each"
keep_dtype = ['bias$']
[[option]]
name = "gate"
help = "its name"
values = ["w1", "g"]
sets = { w1 = { x = "w1" }, g = { x = "g" } }
[[rule]]
suffix = ".e.in"
rank = 3
each_expert = true
width = "d2/2"
parts = 'layers\.(\d+)'
native = 'm.layers.\1.e.in'
outputs = [
  { to = 'm.layers.\1.e.{expert}.{x}', slice = { dim = 2, begin = "0", size = "d2/2" }, transform = "transpose" },
  { to = 'm.layers.\1.e.{expert}.u', slice = { dim = 2, begin = "d2/2", size = "d2/2" }, transform = "transpose" },
]
[[rename]]
prefix = "m."
to = "t."
#: t.layers.3.e.0.w1 2 3
#: t.layers.3.e.0.u 2 3
#: t.layers.3.e.1.w1 2 3
#: t.layers.3.e.1.u 2 3
#: t.norm 3
)"},
      {"folded", R"(name = "folded"
exclude = "native"
exclude_by = "search"
f32 = ['A_log$']
[signs]
all = ['lora']
unsure = "ask"
[[rule]]
regex = '^(.*)lora_(a|b)$'
rank = 3
experts = true
to = '\1lora.\2'
transform = "first_to_last"
shape = ["d1", "d2*d0"]
[[rule]]
contains = "scale"
drop = true
[[rule]]
contains = ".p"
outputs = [{ to = ".q" }, { to = ".ones", transform = "ones", shape = ["d0"] }]
#: x.lora_a 2 3 4
#: x.p 4
#: x.scale 1
)"},
      {"padded", R"(name = "padded"
[variables]
v = "A_log"
[[rule]]
exact = "{v}"
to = "a"
pad = { dim = 0, multiple = 8 }
[[rename]]
contains = "._fp32."
to = "."
back = '\.A_log$'
[[rename]]
regex = 'w(\d)$'
to = 'v\1'
#: A_log 5
#: l._fp32.A_log 2
#: w1 2
)"},
  };
}

}  // namespace refit
