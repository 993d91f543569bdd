// The forms of matrices (base/forms.hpp), compiled once per instruction set (PYRNN_ISA), and once more where some CPUs
// of a set have instructions for them.
#include "base/rounded.hpp"

namespace pyrnn::PYRNN_ISA {

const Forms<float>& forms();
const Forms<float>& forms() {
#if defined(PYRNN_MORE_bf16)  // others are as without
  static constexpr Forms<float> table{{}, {}, RoundedForm::form};
#elif defined(PYRNN_MORE_dot)
  static constexpr Forms<float> table{{}, WordForm<Int8>::form, {}};
#else
  static constexpr Forms<float> table{WordForm<Bfloat16>::form, WordForm<Int8>::form, RoundedForm::form};
#endif
  return table;
}

}  // namespace pyrnn::PYRNN_ISA
