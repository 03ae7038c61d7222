/* Options of sessions and attention through the C interface: defaults, refusals, and callers whose
   structs are of before a field was there. */
#include <annulus/annulus_c.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                      \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "FAILED: %s:%d: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                \
    }                                                                         \
  } while (0)

static annulus_error error;

/* The status of making a session, which is let go. */
static annulus_status session_with(annulus_mesh* mesh, const annulus_session_options* options) {
  annulus_session* session;
  const annulus_status status = annulus_session_create(mesh, options, &session, &error);
  CHECK((session == NULL) == (status != ANNULUS_OK));
  annulus_session_free(session);
  return status;
}

static annulus_session_options session_options(const annulus_problem* problem) {
  annulus_session_options options;
  annulus_session_options_init(&options, sizeof options);
  options.max_problem = problem;
  options.backend = "cpu";
  return options;
}

static void sessions(annulus_mesh* mesh, const annulus_problem* problem) {
  annulus_session_options options = session_options(problem);
  CHECK(options.nccl == NULL && options.peer_copies == NULL);
  options.peer_copies = "shove";
  CHECK(session_with(mesh, &options) == ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "peer_copies shove"));
  options.size = offsetof(annulus_session_options, peer_copies); /* beyond it: not read */
  CHECK(session_with(mesh, &options) == ANNULUS_OK);
  options.size = sizeof options;
  options.peer_copies = "push";
  options.nccl = &error; /* on the CPU nobody looks at it */
  CHECK(session_with(mesh, &options) == ANNULUS_OK);
  options.backward_moves = 3;
  CHECK(session_with(mesh, &options) == ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "backward_moves"));
  options.size = offsetof(annulus_session_options, backward_moves);
  CHECK(session_with(mesh, &options) == ANNULUS_OK);
}

static annulus_status attention_with(annulus_session* session, const annulus_problem* problem,
                                     const annulus_attention_options* options) {
  annulus_attention* attention;
  const annulus_status status =
      annulus_attention_create(session, problem, options, &attention, &error);
  CHECK((attention == NULL) == (status != ANNULUS_OK));
  annulus_attention_free(attention);
  return status;
}

static void attentions(annulus_mesh* mesh, const annulus_problem* problem) {
  const annulus_session_options where = session_options(problem);
  annulus_session* session;
  annulus_attention_options options;
  CHECK(annulus_session_create(mesh, &where, &session, &error) == ANNULUS_OK);
  annulus_attention_options_init(&options, sizeof options);
  CHECK(options.gather_at_once == 1 && options.gather_push == 1 && options.ulysses_slices == 0 && options.sm_limit == 0);
  options.sm_limit = -3;
  CHECK(attention_with(session, problem, &options) == ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "sm_limit -3"));
  options.size = offsetof(annulus_attention_options, sm_limit);
  CHECK(attention_with(session, problem, &options) == ANNULUS_OK);
  options.size = sizeof options;
  options.sm_limit = 8; /* of multiprocessors: the CPU has none */
  CHECK(attention_with(session, problem, &options) == ANNULUS_OK);
  options.backward_moves = -1;
  CHECK(attention_with(session, problem, &options) == ANNULUS_INVALID_ARGUMENT);
  CHECK(strstr(error.text, "backward_moves"));
  options.backward_moves = ANNULUS_MOVES_QUERIES;
  CHECK(attention_with(session, problem, &options) == ANNULUS_OK);
  options.ulysses_slices = -1;
  CHECK(attention_with(session, problem, &options) == ANNULUS_INVALID_ARGUMENT);
  annulus_session_free(session);
}

int main(void) {
  annulus_problem problem;
  annulus_mesh* mesh;
  annulus_problem_init(&problem, sizeof problem);
  problem.seq = 37;
  problem.heads = 2;
  problem.head_dim = 8;
  CHECK(annulus_mesh_single(NULL, &mesh, &error) == ANNULUS_OK);
  sessions(mesh, &problem);
  attentions(mesh, &problem);
  annulus_mesh_free(mesh);
  printf("options from C: all hold\n");
  return 0;
}
