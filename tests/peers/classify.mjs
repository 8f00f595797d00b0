// Asks an endpoint as @huggingface/inference does: node classify.mjs URL PICTURE, the answer or the error as JSON.
import { InferenceClient } from "@huggingface/inference";
import { readFile } from "node:fs/promises";

const [url, picture] = process.argv.slice(2);
const data = new Blob([await readFile(picture)], { type: picture.endsWith(".png") ? "image/png" : "image/jpeg" });
const client = new InferenceClient("hf_none");
try {
    console.log(JSON.stringify(await client.imageClassification({ endpointUrl: url, data })));
} catch (error) {
    console.log(JSON.stringify({ status: error.httpResponse?.status, error: error.httpResponse?.body ?? String(error) }));
}
