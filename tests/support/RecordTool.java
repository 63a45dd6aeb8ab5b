import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.BufferedOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Produces and reads records byte for byte, many commands in one JVM. A command is a line of tab-separated words:
 *
 *   produce BOOTSTRAP TOPIC PARTITION CODEC IDEMPOTENT COUNT     then COUNT record lines; answers COUNT offsets
 *   read    BOOTSTRAP TOPIC PARTITION:COUNT,...                  answers PARTITION OFFSET RECORD lines
 *
 * A record line is TIMESTAMP KEY VALUE HEADERS, bytes as '=' and base64, null as '-', headers as NAME:VALUE;...
 * An answer is "ok N" and N lines, or "error MESSAGE".
 */
public class RecordTool {
    private static final long DEADLINE_MS = 60_000;

    public static void main(String[] ignored) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8), 1 << 16);
        PrintStream out = new PrintStream(new BufferedOutputStream(System.out, 1 << 16), false, StandardCharsets.UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split("\t", -1);
            List<String> records = new ArrayList<>();
            if (words[0].equals("produce")) {
                for (int i = Integer.parseInt(words[6]); i > 0; i--) {
                    records.add(in.readLine());
                }
            }
            try {
                List<String> answer = words[0].equals("produce") ? produce(words, records) : read(words);
                out.println("ok\t" + answer.size());
                answer.forEach(out::println);
            } catch (Exception e) {
                out.println("error\t" + String.valueOf(e).replace('\n', ' '));
            }
            out.flush();
        }
    }

    private static List<String> produce(String[] words, List<String> lines) throws Exception {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", words[1]);
        config.put("compression.type", words[4]);
        config.put("enable.idempotence", words[5]);
        config.put("acks", "all");
        config.put("linger.ms", 5);
        List<String> offsets = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String line : lines) {
                String[] fields = line.split("\t", -1);
                List<Header> headers = new ArrayList<>();
                for (String pair : fields[3].split(";")) {
                    if (!pair.isEmpty()) {
                        String[] header = pair.split(":", -1);
                        String name = new String(bytes(header[0]), StandardCharsets.UTF_8);
                        headers.add(new RecordHeader(name, bytes(header[1])));
                    }
                }
                sent.add(producer.send(new ProducerRecord<>(words[2], Integer.valueOf(words[3]),
                    Long.valueOf(fields[0]), bytes(fields[1]), bytes(fields[2]), headers)));
            }
            for (Future<RecordMetadata> future : sent) {
                offsets.add(Long.toString(future.get().offset()));
            }
        }
        return offsets;
    }

    private static List<String> read(String[] words) {
        Map<Integer, Integer> left = new HashMap<>();
        List<TopicPartition> partitions = new ArrayList<>();
        for (String wanted : words[3].split(",")) {
            String[] pair = wanted.split(":");
            left.put(Integer.valueOf(pair[0]), Integer.valueOf(pair[1]));
            partitions.add(new TopicPartition(words[2], Integer.parseInt(pair[0])));
        }
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", words[1]);
        config.put("enable.auto.commit", false);
        config.put("auto.offset.reset", "none");
        config.put("isolation.level", "read_committed");
        List<String> found = new ArrayList<>();
        long deadline = System.currentTimeMillis() + DEADLINE_MS;
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(partitions);
            partitions.forEach(partition -> consumer.seek(partition, 0));
            while (left.values().stream().anyMatch(n -> n > 0) && System.currentTimeMillis() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    left.merge(record.partition(), -1, Integer::sum);
                    StringBuilder headers = new StringBuilder();
                    for (Header header : record.headers()) {
                        byte[] name = header.key().getBytes(StandardCharsets.UTF_8);
                        headers.append(text(name)).append(':').append(text(header.value())).append(';');
                    }
                    found.add(record.partition() + "\t" + record.offset() + "\t" + record.timestamp() + "\t"
                        + text(record.key()) + "\t" + text(record.value()) + "\t" + headers);
                }
            }
        }
        return found;
    }

    private static byte[] bytes(String text) {
        return text.equals("-") ? null : Base64.getDecoder().decode(text.substring(1));
    }

    private static String text(byte[] data) {
        return data == null ? "-" : "=" + Base64.getEncoder().encodeToString(data);
    }
}
