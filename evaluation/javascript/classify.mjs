// Classify images with transformers.js in Node, without the network:
//     node classify.mjs NODE_MODULES MODEL_FOLDER DTYPE RESIZE < paths.txt
// reads a path a line and prints, last, a line of JSON: for each image [{"label": ..., "score": ...}, ...], the likeliest first.
// RESIZE is "folder", by the model folder's onnx/resize.mjs, or "library".

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, folder, dtype, how] = process.argv.slice(2);
const { RawImage, env, pipeline } = createRequire(path.join(modules, 'here.js'))('@huggingface/transformers');
env.allowRemoteModels = false;
env.useFSCache = false;
env.localModelPath = path.dirname(folder);

const classify = await pipeline('image-classification', path.basename(folder), { dtype });
const top_k = Object.keys(classify.model.config.id2label).length;
const { width, height } = classify.processor.image_processor.size;
const prepare = { library: (image) => image };
if (how === 'folder') {
    const { resize } = await import(pathToFileURL(path.join(folder, 'onnx', 'resize.mjs')));
    prepare.folder = (image) => resize(image, width, height);
}
const answers = [];
for (const file of fs.readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
    answers.push(await classify(prepare[how](await RawImage.read(file)), { top_k }));
}
console.log(JSON.stringify(answers));
