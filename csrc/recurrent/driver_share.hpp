// How threads share a run, and where its rows lie then.
#pragma once

#include "base/threads.hpp"
#include "recurrent/driver.hpp"

namespace pyrnn {

// Multiply-adds of a step of one row: the numbers of a layer's weights. Of matrices in fewer bits as many as take about
// as long, since their bytes are what is waited for.
template <class T> i64 step_work(const Layer<T>&);
template <class T> i64 run_work(const Layer<T>& l, const Rows& rows) { return step_work(l) * rows.first[rows.steps]; }

// The most numbers that a thread prepares at once for products with such matrices (Run::prepared).
template <class T> i64 most_prepared(const Layer<T>&, const Transposed<T>&, i64 rows, i64 chunk);

// Steps whose input product is done at once: enough rows that W_ih is read seldom, few enough to stay in cache.
i64 chunk_steps(const Rows&);

// Sets run.groups, team, assisted, row_block and row_step. Needs run.rows and run.chunk.
template <class T> void share(Run<T>&, const Layer<T>&, int threads);

// Where the rows of a run lie, as it has been shared, with so many slots for each of them.
template <class T> Places places(const Run<T>&, const Layer<T>&, i64 slots);

// Runs a kernel on the threads that `share` has given a run.
template <class T> void on_threads(Team&, Run<T>&, const Layer<T>&, Watch&, void (*kernel)(const Run<T>&, int thread));

}  // namespace pyrnn
