refit_test(tensor_test
  SOURCES tensor/dtype_test.cc
          tensor/shape_test.cc
          tensor/box_test.cc
          tensor/tensor_spec_test.cc
          tensor/buffer_test.cc
          tensor/slab_test.cc
          tensor/memory_probe_test.cc
          tensor/kernels_test.cc
          tensor/statistics_test.cc
  DEPS refit::tensor
  LABELS unit)
