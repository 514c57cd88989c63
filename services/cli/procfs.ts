// What the kernel says about the service processes: memory and processor time.
// /proc is closed to a Deno process with named permissions, so one `cat` reads all files at once.

export interface ProcessSample {
  pid: number;
  threads: number;
  /** User + system time since the process began. */
  cpuSeconds: number;
  residentBytes: number;
  /** Proportional set size: pages shared by n processes count 1/n. Adds up over processes. */
  proportionalBytes: number;
  sharedBytes: number;
}

const ticksPerSecond = 100; // USER_HZ of every Linux that Debian builds

/** One sample per process that still exists. */
export async function sampleProcesses(pids: readonly number[]): Promise<ProcessSample[]> {
  if (pids.length === 0) return [];
  const { stdout } = await new Deno.Command("cat", {
    args: pids.flatMap((pid) => [`/proc/${pid}/stat`, `/proc/${pid}/smaps_rollup`]),
    stdin: "null",
    stderr: "null",
  }).output();
  return parseSamples(new TextDecoder().decode(stdout));
}

/** Parses concatenated stat and smaps_rollup files; exported for its test. */
export function parseSamples(text: string): ProcessSample[] {
  const samples: ProcessSample[] = [];
  let current: ProcessSample | undefined;
  for (const line of text.split("\n")) {
    const stat = /^(\d+) \(.*\) [A-Za-z] /.exec(line);
    if (stat) {
      const fields = line.slice(line.lastIndexOf(")") + 2).split(" ");
      current = {
        pid: Number(stat[1]),
        threads: Number(fields[17]),
        cpuSeconds: (Number(fields[11]) + Number(fields[12])) / ticksPerSecond,
        residentBytes: 0,
        proportionalBytes: 0,
        sharedBytes: 0,
      };
      samples.push(current);
      continue;
    }
    const field = /^(Rss|Pss|Shared_Clean|Shared_Dirty):\s+(\d+) kB$/.exec(line);
    if (!field || !current) continue;
    const bytes = Number(field[2]) * 1024;
    if (field[1] === "Rss") current.residentBytes = bytes;
    else if (field[1] === "Pss") current.proportionalBytes = bytes;
    else current.sharedBytes += bytes;
  }
  // A process that ended between its two files has no memory to report.
  return samples.filter(({ residentBytes }) => residentBytes > 0);
}
