// Composed operators give the same bits whatever the environment says about threads: large sums and products are where
// libtorch and BLAS would split work by thread count.

import { expect, test } from "vitest";

const PROGRAM = `
import { createHash } from "node:crypto";
import { Generator, randn, setNumThreads } from ${
  JSON.stringify(new URL("./mod.ts", import.meta.url).href)
};
setNumThreads(Number(Deno.args[0]));
const g = new Generator(9n);
const a = randn([700, 300], g).requiresGrad_(), b = randn([300, 500], g).requiresGrad_();
const y = a.matmul(b).tanh();
y.mean(0).square().sum().add(y.layerNorm([500]).std(1).sum()).backward();
const hash = createHash("sha256");
for (const t of [y, a.grad(), b.grad(), randn([300000], g).sum()]) hash.update(t.bytes());
console.log(hash.digest("hex"));
`;

test("the hash of products, sums and gradients is the same for 1 and 4 threads", async () => {
  const hash = async (threads: number) => {
    const output = await new Deno.Command(Deno.execPath(), {
      args: ["eval", "--ext=ts", PROGRAM, String(threads)],
      env: { OMP_NUM_THREADS: `${threads}`, OPENBLAS_NUM_THREADS: `${threads}` },
    }).output();
    const text = new TextDecoder();
    expect(text.decode(output.stderr)).toBe("");
    return text.decode(output.stdout).trim();
  };
  const one = await hash(1);
  expect(one).toMatch(/^[0-9a-f]{64}$/);
  expect(await hash(4)).toBe(one);
});
