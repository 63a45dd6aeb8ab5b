import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Says of combinations of configs whether Kafka's own clients take them. A line of input: the kind of client, then
 * NAME=VALUE, separated by tabs. A line of output: "refused", or what became of two that others change.
 */
public final class ClientCombinations {
    private static final ByteArraySerializer OUT = new ByteArraySerializer();
    private static final ByteArrayDeserializer IN = new ByteArrayDeserializer();

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] parts = line.split("\t");
            Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", "127.0.0.1:1"));
            for (int at = 1; at < parts.length; at++) {
                String[] setting = parts[at].split("=", 2);
                settings.put(setting[0], setting[1]);
            }
            String outcome;
            try {
                outcome = parts[0].equals("producer") ? producer(settings) : consumer(settings);
            } catch (RuntimeException refused) {
                outcome = "refused";
            }
            System.out.println(outcome);
        }
    }

    private static String producer(Map<String, Object> settings) {
        new KafkaProducer<>(settings, OUT, OUT).close(Duration.ZERO);
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        ProducerConfig read = new ProducerConfig(settings);
        return "acks=" + read.getString("acks") + " idempotent=" + read.getBoolean("enable.idempotence");
    }

    private static String consumer(Map<String, Object> settings) {
        new KafkaConsumer<>(settings, IN, IN).close(Duration.ZERO);
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        return "commits=" + new ConsumerConfig(settings).getBoolean("enable.auto.commit");
    }
}
