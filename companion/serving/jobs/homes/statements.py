"""The job store in SQL that SQLite and PostgreSQL both understand.

Each statement that changes a job is one step on the side of the store: it names what must hold and
changes the row in the same breath (`UPDATE … WHERE … RETURNING`), so no two workers can both see a
job as free. `:now` is the store's clock and `:skip_locked` what PostgreSQL needs so that claimers
do not wait for each other; the homes put in what is right for them.

Sources: https://www.sqlite.org/lang_returning.html,
https://www.postgresql.org/docs/current/sql-select.html#SQL-FOR-UPDATE-SHARE.
"""

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS jobs (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        idempotency_key TEXT,
        state TEXT NOT NULL,
        kind TEXT NOT NULL,
        bytes BIGINT NOT NULL,
        sha256 TEXT NOT NULL,
        rows_total BIGINT,
        next_row BIGINT NOT NULL DEFAULT 1,
        scored BIGINT NOT NULL DEFAULT 0,
        rejected BIGINT NOT NULL DEFAULT 0,
        rejects_kept BIGINT NOT NULL DEFAULT 0,
        attempts BIGINT NOT NULL DEFAULT 0,
        tries BIGINT NOT NULL DEFAULT 0,
        worker TEXT,
        token BIGINT NOT NULL DEFAULT 0,
        lease_until DOUBLE PRECISION,
        not_before DOUBLE PRECISION NOT NULL DEFAULT 0,
        created_at DOUBLE PRECISION NOT NULL,
        updated_at DOUBLE PRECISION NOT NULL,
        started_at DOUBLE PRECISION,
        finished_at DOUBLE PRECISION,
        error_type TEXT,
        error_message TEXT,
        error_traceback TEXT,
        UNIQUE (owner, idempotency_key)
    )
    """,
    "CREATE INDEX IF NOT EXISTS jobs_to_do ON jobs (state, created_at)",
    """
    CREATE TABLE IF NOT EXISTS parts (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        first_row BIGINT NOT NULL,
        payload BYTEA NOT NULL,
        PRIMARY KEY (job_id, first_row)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS rejects (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        row_number BIGINT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (job_id, row_number)
    )
    """,
)

INSERT = """
INSERT INTO jobs (id, owner, idempotency_key, state, kind, bytes, sha256, created_at, updated_at)
VALUES (:id, :owner, :key, 'queued', :kind, :bytes, :sha256, :now, :now)
ON CONFLICT (owner, idempotency_key) DO NOTHING
RETURNING *
"""

BY_KEY = "SELECT * FROM jobs WHERE owner = :owner AND idempotency_key = :key"

GET = "SELECT * FROM jobs WHERE id = :id"

LATEST = "SELECT * FROM jobs ORDER BY created_at DESC, id DESC LIMIT :count"

CLOCK = "SELECT :now AS now"

GIVE_UP = """
UPDATE jobs
SET state = 'failed', worker = NULL, lease_until = NULL, token = token + 1,
    updated_at = :now, finished_at = :now, error_type = 'WorkerDiedError', error_traceback = '',
    error_message = 'worker ' || worker || ' died or hung after row ' || (next_row - 1)
        || ', as others before it; tried ' || tries || ' times'
WHERE state = 'running' AND lease_until < :now AND tries >= :max_tries
"""

_FREE = """
(state = 'queued' AND not_before <= :now) OR (state = 'running' AND lease_until < :now)
"""

_CLAIM = """
UPDATE jobs
SET state = 'running', worker = :worker, token = token + 1, lease_until = :now + :lease,
    attempts = attempts + 1, tries = tries + 1, updated_at = :now,
    started_at = COALESCE(started_at, :now)
WHERE id = (
    SELECT id FROM jobs WHERE {which}
    ORDER BY created_at, id LIMIT 1 :skip_locked
)
RETURNING *
"""

CLAIM_NEXT = _CLAIM.format(which=_FREE)

CLAIM_ONE = _CLAIM.format(which=f"id = :id AND ({_FREE})")

_MINE = "id = :id AND token = :token AND state = 'running'"

RENEW = f"UPDATE jobs SET lease_until = :now + :lease WHERE {_MINE} RETURNING *"

CHECKPOINT = f"""
UPDATE jobs
SET next_row = :end, scored = scored + :scored, rejected = rejected + :rejected,
    rejects_kept = rejects_kept + :kept, rows_total = :rows, tries = 0,
    lease_until = :now + :lease, updated_at = :now
WHERE {_MINE} AND next_row = :first
RETURNING *
"""

ADD_PART = "INSERT INTO parts (job_id, first_row, payload) VALUES (:id, :first, :payload)"

ADD_REJECT = "INSERT INTO rejects (job_id, row_number, reason) VALUES (:id, :row, :reason)"

FINISH = f"""
UPDATE jobs
SET state = 'done', rows_total = :rows, worker = NULL, lease_until = NULL,
    error_type = NULL, error_message = NULL, error_traceback = NULL,
    updated_at = :now, finished_at = :now
WHERE {_MINE} AND next_row = :rows + 1
RETURNING *
"""

FAIL = f"""
UPDATE jobs
SET state = 'failed', worker = NULL, lease_until = NULL, updated_at = :now, finished_at = :now,
    error_type = :error_type, error_message = :error_message, error_traceback = :error_traceback
WHERE {_MINE}
RETURNING *
"""

TRY_AGAIN = f"""
UPDATE jobs
SET state = 'queued', worker = NULL, lease_until = NULL, not_before = :now + :pause,
    updated_at = :now,
    error_type = :error_type, error_message = :error_message, error_traceback = :error_traceback
WHERE {_MINE}
RETURNING *
"""

RELEASE = f"""
UPDATE jobs
SET state = 'queued', worker = NULL, lease_until = NULL, tries = tries - 1, updated_at = :now
WHERE {_MINE}
RETURNING *
"""

# The token moves on, so whoever works on the job is fenced off from that moment.
CANCEL = """
UPDATE jobs
SET state = 'cancelled', worker = NULL, lease_until = NULL, token = token + 1,
    updated_at = :now, finished_at = :now
WHERE id = :id AND state IN ('queued', 'running')
RETURNING *
"""

PART_AFTER = """
SELECT first_row, payload FROM parts
WHERE job_id = :id AND first_row > :after ORDER BY first_row LIMIT 1
"""

REJECTS_AFTER = """
SELECT row_number, reason FROM rejects
WHERE job_id = :id AND row_number > :after ORDER BY row_number LIMIT :count
"""

FORGET = """
DELETE FROM jobs
WHERE state IN ('done', 'failed', 'cancelled') AND finished_at < :now - :older_than
RETURNING *
"""
