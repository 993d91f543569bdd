// What weights say about a layer's sizes, and whether they fit each other: see weights.hpp.
#include "bindings/weights.hpp"

#include "bindings/encoded.hpp"

namespace pyrnn {

namespace {

bool has(const RecurrentOp& op, Role role) {
  return std::any_of(op.weights.begin(), op.weights.end(), [&](const CellWeight& w) { return w.role == role; });
}

// What is given, or of arrays with an axis of models the first one's part.
template <class T>
std::vector<py::object> of_first_model(const std::string& call, const RecurrentOp& op, const py::sequence& given,
                                       Models& models, std::vector<i64>& distances) {
  std::vector<py::object> entries;
  entries.reserve(op.weights.size());
  for (std::size_t i = 0; i < op.weights.size(); ++i) entries.push_back(given[i]);  // a list may be another by now
  distances.assign(entries.size(), 0);
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64) {
    if (weight.role != Role::ih || !py::isinstance<py::array_t<T>>(entries[i])) return;
    const auto ih = py::reinterpret_borrow<py::array>(entries[i]);
    models.axis = ih.ndim() == 3;
    if (models.axis) models.count = ih.shape(0);
  });
  if (!models.axis) return entries;
  if (models.count == 0) wrong_value(call, "there are no models");
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].is_none()) continue;
    py::array all = to_typed<T>(call, op.weights[i].name, entries[i]);
    if (all.ndim() < 2 || all.shape(0) != models.count)
      wrong_shape(call, op.weights[i].name, all, "(" + std::to_string(models.count) + ", ...)");
    const auto plain = [&] {
      return all.strides(0) % py::ssize_t(sizeof(T)) == 0 &&
             (py::array(models.first(all)).flags() & py::array::c_style) &&
             (all.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
    };
    if (!plain()) all = py::array(all.attr("copy")("C"));
    distances[i] = models.distance<T>(all);
    entries[i] = models.first(all);
  }
  return entries;
}

}  // namespace

i64 CellWeight::vectors(int gates) const {
  if (letters[0] == 'G') return gates;
  return letters[0] == 'H' ? 1 : letters[0] - '0';
}

Shape CellWeight::shape(int gates, const Sizes& size) const {
  Shape shape{};
  i64 factor = 1;
  for (const char* letter = letters; *letter; ++letter) {
    if (*letter >= '1' && *letter <= '9') {
      factor = *letter - '0';
      continue;
    }
    const i64 length = *letter == 'G' ? gates * size.H : *letter == 'I' ? size.I : *letter == 'P' ? size.P : size.H;
    shape.add(factor * length);
    factor = 1;
  }
  return shape;
}

py::sequence to_sequence(const std::string& call, const std::string& name, py::handle object, std::size_t length) {
  if (!py::isinstance<py::sequence>(object) || py::isinstance<py::array>(object) || py::isinstance<py::str>(object))
    wrong_type(call, name, object, "a tuple");
  auto sequence = py::reinterpret_borrow<py::sequence>(object);
  if (sequence.size() != length)
    wrong_value(call,
                name + " has " + std::to_string(sequence.size()) + " entries, expected " + std::to_string(length));
  return sequence;
}

template <class T>
ParsedWeights<T> parse_weights(const std::string& call, const std::string& what, const RecurrentOp& op, Chosen chosen,
                               py::handle object) {
  const py::sequence given = to_sequence(call, what, object, op.weights.size());
  ParsedWeights<T> w;
  std::vector<py::object> entries = of_first_model<T>(call, op, given, w.models, w.all.distances);
  w.arrays.reserve(entries.size()), w.all.data.reserve(entries.size());
  for (std::size_t i = 0; i < op.weights.size(); ++i) {
    const py::object& entry = entries[i];
    const Role role = op.weights[i].role;
    if (entry.is_none()) {
      w.arrays.push_back(entry);
    } else if (role == Role::ih || role == Role::hh || role == Role::hr) {
      const GivenMatrix<T> matrix = to_any_matrix<T>(call, op.weights[i].name, entry);
      Matrix<const T>& own = role == Role::ih ? w.pointers.ih : role == Role::hh ? w.pointers.hh : w.pointers.hr;
      own = matrix.matrix;
      if (chosen.rounded) round_products(call, op.weights[i].name, own);
      w.arrays.push_back(matrix.numbers);
      if (matrix.scale) w.scales.push_back(matrix.scale);
    } else {
      w.arrays.push_back(to_packed<T>(call, op.weights[i].name, entry));
    }
  }
  auto present = [&](Role role) {
    for (std::size_t i = 0; i < op.weights.size(); ++i)
      if (op.weights[i].role == role && !w.arrays[i].is_none()) return true;
    return false;
  };
  auto array = [&](std::size_t i) {
    if (w.arrays[i].is_none())
      wrong_type(call, op.weights[i].name, py::none(), std::string("an array of dtype ") + dtype_name<T>());
    return py::reinterpret_borrow<py::array>(w.arrays[i]);
  };
  const int gates = op.gate_count();
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64) {
    if (weight.role == Role::ih) {
      const py::array ih = array(i);
      const i64 rows = ih.ndim() == 2 ? ih.shape(0) : 0;
      if (rows == 0 || rows % gates)
        wrong_shape(call, weight.name, ih, std::string("(") + std::to_string(gates) + "*H, I)");
      w.size = {ih.shape(1), rows / gates, rows / gates};
    }
  });
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64) {
    if (weight.role != Role::hr || w.arrays[i].is_none()) return;
    const py::array hr = array(i);
    if (hr.ndim() != 2 || hr.shape(1) != w.size.H || hr.shape(0) == 0)
      wrong_shape(call, weight.name, hr, "(P, " + std::to_string(w.size.H) + ")");
    w.size.P = hr.shape(0);
  });
  if (has(op, Role::b_hh) && present(Role::b_ih) != present(Role::b_hh))
    wrong_value(call, "bias_ih and bias_hh come both or not at all");
  w.kind = op.with ? op.with(chosen.kind, present(Role::hr), present(Role::unit)) : chosen.kind;
  w.pointers.options = chosen.options;
  w.pointers.options.peephole = present(Role::unit);
  each_weight(op, [&](std::size_t i, const CellWeight& weight, i64 unit) {
    if (weight.optional && w.arrays[i].is_none()) return;
    check_shape(call, weight.name, array(i), weight.shape(gates, w.size));
    put(w.pointers, weight, unit, static_cast<const T*>(array(i).data()), gates, w.size.H);
  });
  for (const py::object& a : w.arrays)
    w.all.data.push_back(a.is_none() ? nullptr : static_cast<const T*>(py::reinterpret_borrow<py::array>(a).data()));
  return w;
}

template ParsedWeights<float> parse_weights(const std::string&, const std::string&, const RecurrentOp&, Chosen,
                                            py::handle);
template ParsedWeights<double> parse_weights(const std::string&, const std::string&, const RecurrentOp&, Chosen,
                                             py::handle);

}  // namespace pyrnn
