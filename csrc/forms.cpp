// The forms of matrices (base/forms.hpp), compiled once per instruction set (PYRNN_ISA), and once more where some CPUs
// of a set have instructions for them.
#include "base/words.hpp"

namespace pyrnn::PYRNN_ISA {

const Forms<float>& forms();
const Forms<float>& forms() {
  static constexpr Forms<float> table{WordForm<Bfloat16>::form, WordForm<Int8>::form};
  return table;
}

}  // namespace pyrnn::PYRNN_ISA
