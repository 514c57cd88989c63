// Settings of the engine that a question may bring (`&name=value`): those that lower a limit or shape
// the answer are applied, those that only steer the transport or the engine's own work are taken and
// change nothing, all others are refused with the engine's own code.

import { EngineError, questionLimits } from "./store.ts";

/** Limits of one question, and whether a smaller one may be asked for. */
const limits: Record<string, number> = {
  ...questionLimits,
  max_rows_to_read: Infinity,
  max_bytes_to_read: Infinity,
};

/** What shapes the answer and reaches nothing else. */
const applied =
  /^(limit|offset|extremes|join_use_nulls|group_by_use_nulls|result_overflow_mode|read_overflow_mode|session_timezone|date_time_input_format|date_time_output_format|max_block_size|transform_null_in|output_format_(json|csv|tsv|pretty|native|decimal|arrow|parquet|values|sql_insert)_\w+|format_csv_delimiter)$/;

/** Taken without effect: the transport, sessions, logging, and how the engine divides its work. */
const ignored = new Set([
  "query_id",
  "session_id",
  "session_timeout",
  "session_check",
  "client_protocol_version",
  "quota_key",
  "role",
  "readonly",
  "stacktrace",
  "buffer_size",
  "wait_end_of_query",
  "enable_http_compression",
  "http_zlib_compression_level",
  "network_compression_method",
  "send_progress_in_http_headers",
  "http_headers_progress_interval_ms",
  "http_write_exception_in_output_format",
  "cancel_http_readonly_queries_on_client_close",
  "add_http_cors_header",
  "http_receive_timeout",
  "http_send_timeout",
  "connect_timeout",
  "receive_timeout",
  "send_timeout",
  "log_queries",
  "log_comment",
  "priority",
  "max_threads",
  "use_query_cache",
  "use_uncompressed_cache",
  "async_insert",
  "wait_for_async_insert",
]);

/**
 * The settings among a request's parameters that the engine has to know. `known` are the engine's own
 * names. Throws EngineError: 115 UNKNOWN_SETTING, 164 READONLY, 72 for a value that is no number.
 */
export function settingsOf(
  parameters: Iterable<[name: string, value: string]>,
  known: ReadonlySet<string>,
): Record<string, string> {
  const settings: Record<string, string> = {};
  for (const [name, value] of parameters) {
    if (ignored.has(name)) continue;
    if (Object.hasOwn(limits, name)) {
      if (!/^\d{1,15}$/.test(value)) {
        throw refused(72, `Cannot parse ${name}: expected a whole number`, "CANNOT_PARSE_NUMBER");
      }
      // 0 is "no limit" to the engine; ours stays then.
      const asked = Number(value) || Infinity;
      if (asked < limits[name]) settings[name] = value;
    } else if (applied.test(name) && known.has(name)) {
      if (!/^[\w ,;.:/+-]{0,100}$/.test(value)) {
        throw refused(36, `Value of setting '${name}' is not allowed`, "BAD_ARGUMENTS");
      }
      settings[name] = value;
    } else if (known.has(name)) {
      throw refused(164, `Cannot modify '${name}' setting in readonly mode`, "READONLY");
    } else {
      throw refused(115, `Unknown setting '${name.slice(0, 100)}'`, "UNKNOWN_SETTING");
    }
  }
  return settings;
}

const refused = (code: number, text: string, name: string) =>
  new EngineError(code, `Code: ${code}. DB::Exception: ${text}. (${name})`);
