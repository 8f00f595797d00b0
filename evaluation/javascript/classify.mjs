// Classify images with transformers.js in Node, without the network:
//     node classify.mjs NODE_MODULES MODEL_FOLDER DTYPE < paths.txt
// reads a path a line and prints, last, a line of JSON: for each image [{"label": ..., "score": ...}, ...], the likeliest first.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const [modules, folder, dtype] = process.argv.slice(2);
const { env, pipeline } = createRequire(path.join(modules, 'here.js'))('@huggingface/transformers');
env.allowRemoteModels = false;
env.useFSCache = false;
env.localModelPath = path.dirname(folder);

const classify = await pipeline('image-classification', path.basename(folder), { dtype });
const top_k = Object.keys(classify.model.config.id2label).length;
const answers = [];
for (const image of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    answers.push(await classify(image, { top_k }));
}
console.log(JSON.stringify(answers));
